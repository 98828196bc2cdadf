//! Names that one part of the file declares and another refers to: realms and upstreams.

use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::section::Section;
use super::value::{self, Fault};

/// The names of `[section.NAME]`, in the order that gives them their indices.
#[derive(Debug)]
pub(super) struct SectionNames<'d> {
    section: &'static str,
    /// Where the section is in the file.
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
        Self::of(root, "sessions", "/sessions")
    }

    pub(super) fn upstreams(root: &Section<'d, '_>) -> Self {
        Self::of(root, "upstreams", "/upstreams")
    }

    fn of(root: &Section<'d, '_>, section: &'static str, location: &'static str) -> Self {
        let names = root.names(section).into_iter();
        let names = names.map(|(name, span)| Name { name, span, used: false }).collect();
        Self { section, location, names }
    }

    /// The index of `name`, which counts as used from now on.
    pub(super) fn resolve(&mut self, name: &str) -> Result<usize, Fault> {
        if let Some(index) = self.names.iter().position(|known| known.name == name) {
            self.names.iter_mut().skip(index).take(1).for_each(|known| known.used = true);
            return Ok(index);
        }
        let known: Vec<_> = self.names.iter().map(|known| known.name).collect();
        let fault = Fault::new(format!("names no `[{}.NAME]` of this file", self.section));
        let fault = Fault { needs: Some(self.location), ..fault };
        Err(match value::nearest(name, known.iter().copied()) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None if known.is_empty() => fault,
            None => fault.hint(format!("there are: {}", value::listed(&known))),
        })
    }

    /// The name of an index.
    pub(super) fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(|known| known.name)
    }

    /// Warns of the names that no route has used. A route with an error may mean any of them.
    pub(super) fn warn_of_unused(&self, root: &mut Section<'_, '_>) {
        for name in self.names.iter().filter(|name| !name.used) {
            let message = format!("`{}.{}` is used by no route", self.section, name.name);
            root.report_given(&["routes/"], Diagnostic::warning(message), Some(name.span.clone()));
        }
    }
}
