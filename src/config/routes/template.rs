//! Text with variables in braces, such as `{name}`. `{{` and `}}` are literal braces.

use crate::config::value::Fault;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<V> {
    /// Literal text.
    Text(String),
    /// A variable.
    Variable(V),
}

/// Parses `text` into pieces; `variable` parses the names in braces. Literals are never empty or adjacent.
pub(super) fn parse<V>(
    text: &str,
    variable: impl Fn(&str) -> Result<V, Fault>,
) -> Result<Vec<Piece<V>>, Fault> {
    let unbalanced = || Fault::new("has an unbalanced brace").hint("write `{{` and `}}` for literal braces");
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
