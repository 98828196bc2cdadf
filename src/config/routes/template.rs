//! Text with variables in braces: `{name}`; `{{` and `}}` are braces. What a variable may be is the caller's to say.

use crate::config::value::Fault;

/// A piece of such a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<V> {
    /// Text, as it stands.
    Text(String),
    /// What stands for something else.
    Variable(V),
}

/// The pieces of `text`: no two texts side by side, and none that is empty.
pub(super) fn parse<V>(
    text: &str,
    variable: impl Fn(&str) -> Result<V, Fault>,
) -> Result<Vec<Piece<V>>, Fault> {
    let unbalanced =
        || Fault::new("has a brace without its counterpart").hint("write `{{` and `}}` for braces");
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, from_brace) = rest.split_at_checked(brace).unwrap_or((rest, ""));
        literal.push_str(before);
        if let Some(after) = from_brace.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = from_brace.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else {
            let inside = from_brace.strip_prefix('{').ok_or_else(unbalanced)?;
            let (name, after) = inside.split_once('}').ok_or_else(unbalanced)?;
            if name.contains('{') {
                return Err(unbalanced());
            }
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Variable(variable(name)?));
            rest = after;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}
