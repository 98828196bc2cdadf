//! References between sections: routes refer to realms and upstreams by name.

use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::section::Section;
use super::value::{self, Fault};

/// The names declared by `[section.NAME]`, in the order of their indices.
#[derive(Debug)]
pub(super) struct SectionNames<'d> {
    section: &'static str,
    /// The section's location, as the `needs` of a check refer to it.
    location: &'static str,
    names: Vec<Name<'d>>,
}

#[derive(Debug)]
struct Name<'d> {
    name: &'d str,
    span: Range<usize>,
    used: bool,
}

impl<'d> SectionNames<'d> {
    pub(super) fn realms(root: &Section<'d, '_>) -> Self {
        Self::new(root, "sessions", "/sessions")
    }

    pub(super) fn upstreams(root: &Section<'d, '_>) -> Self {
        Self::new(root, "upstreams", "/upstreams")
    }

    fn new(root: &Section<'d, '_>, section: &'static str, location: &'static str) -> Self {
        let names = root.names(section).into_iter();
        let names = names.map(|(name, span)| Name { name, span, used: false }).collect();
        Self { section, location, names }
    }

    /// Returns the index of `name` and marks it as used.
    pub(super) fn resolve(&mut self, name: &str) -> Result<usize, Fault> {
        if let Some(index) = self.names.iter().position(|known| known.name == name) {
            self.names.iter_mut().skip(index).take(1).for_each(|known| known.used = true);
            return Ok(index);
        }
        let known: Vec<_> = self.names.iter().map(|known| known.name).collect();
        let fault = Fault::new(format!("refers to an unknown `[{}.NAME]`", self.section));
        let fault = Fault { needs: Some(self.location), ..fault };
        Err(match value::nearest(name, known.iter().copied()) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None if known.is_empty() => fault,
            None => fault.hint(format!("known names: {}", value::listed(&known))),
        })
    }

    /// Returns the name at `index`.
    pub(super) fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(|known| known.name)
    }

    /// Warns about names that no route refers to. Does not warn if a key of a route is broken (rejected, missing or
    /// misspelt), since that route may refer to any of them.
    pub(super) fn warn_of_unused(&self, root: &mut Section<'_, '_>) {
        for name in self.names.iter().filter(|name| !name.used) {
            let message = format!("no route uses `{}.{}`", self.section, name.name);
            root.report_unless_broken(&["routes/"], Diagnostic::warning(message), Some(name.span.clone()));
        }
    }
}
