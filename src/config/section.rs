//! A cursor over one table of the file. Reading a key records what is wrong with it and goes on, and leaving the table
//! reports the keys that nobody asked for: so one run finds every problem, and a key that is not read cannot be accepted.
//!
//! A check that compares values names the keys that it depends on. A key that is refused, missing or misspelt has a
//! stand-in for its value, and what is wrong with a stand-in is not reported: the operator has to mend the key anyway.
//!
//! 1. A key becomes broken only together with an error that is reported, so dropping a dependent problem never lets a bad
//!    file pass.
//! 2. Contradictions between values break no key, so two of them cannot hide each other.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::value::{self, Fault};

/// Everything found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    diagnostics: Vec<Diagnostic>,
    /// Problems that are reported only if none of the keys beside them is broken.
    dependent: Vec<(Diagnostic, Vec<String>)>,
    /// The locations of keys whose values are not what the file means: refused, missing or misspelt.
    broken: Vec<String>,
    /// Every key that was ever asked for: the reference file is held against it.
    #[cfg(test)]
    pub(super) asked: std::collections::BTreeSet<&'static str>,
}

/// One table of the file, which may be absent: then every key of it is.
#[derive(Debug)]
pub(super) struct Section<'d, 'p> {
    table: Option<&'d DeTable<'d>>,
    /// How messages name it: `sessions.main`; empty at the root.
    path: String,
    /// Its unique location: `/routes/2/headers`; empty at the root.
    location: String,
    /// Where it begins; the whole file for the root.
    span: Option<Range<usize>>,
    asked: Vec<&'static str>,
    /// Required keys that are absent; they may turn out to be misspelt.
    missing: Vec<&'static str>,
    problems: &'p mut Problems,
}

/// A key of a table whose keys are the operator's own: names, headers, claims.
#[derive(Debug)]
pub(super) struct TableEntry<'d> {
    pub(super) name: &'d str,
    pub(super) span: Range<usize>,
    pub(super) value: &'d Spanned<DeValue<'d>>,
}

// === impl Problems ===

impl Problems {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let Self { mut diagnostics, dependent, broken, .. } = self;
        let stands = |needs: &[String]| !needs.iter().any(|need| is_broken(&broken, need));
        let dependent = dependent.into_iter().filter(|(_, needs)| stands(needs));
        diagnostics.extend(dependent.map(|(diagnostic, _)| diagnostic));
        diagnostics
    }
}

/// Whether the key at `need` or a table around it is broken; with a `/` at its end, whether anything below it is, too.
fn is_broken(broken: &[String], need: &str) -> bool {
    let is_below = |location: &str, above: &str| {
        location.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let whole = need.strip_suffix('/');
    broken.iter().any(|broken| match whole {
        Some(table) => is_below(table, broken) || is_below(broken, table),
        None => is_below(need, broken),
    })
}

// === impl Section ===

impl<'d, 'p> Section<'d, 'p> {
    /// Reads the whole file.
    pub(super) fn root<T>(
        document: &'d DeTable<'d>,
        problems: &'p mut Problems,
        read: impl FnOnce(&mut Section<'d, '_>) -> T,
    ) -> T {
        Section::open(Some(document), (String::new(), String::new()), None, problems, read)
    }

    fn open<'o, T>(
        table: Option<&'d DeTable<'d>>,
        (path, location): (String, String),
        span: Option<Range<usize>>,
        problems: &'o mut Problems,
        read: impl FnOnce(&mut Section<'d, 'o>) -> T,
    ) -> T {
        let mut section =
            Section { table, path, location, span, asked: Vec::new(), missing: Vec::new(), problems };
        let result = read(&mut section);
        section.finish();
        result
    }

    /// A value, if the key is there and `parse` takes it.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.value(key)?;
        parse(value.get_ref()).map_err(|fault| self.refuse_at(key, value.span(), fault)).ok()
    }

    /// A value that must be there if the table is.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        if self.is_there() && !self.has(key) {
            self.missing.push(key);
        }
        self.get(key, parse)
    }

    /// The elements of a list, if `parse` takes all of them; each of the others is reported.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        mut parse: impl FnMut(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.refuse_at(key, value.span(), value::wrong_type(value.get_ref(), "a list"));
            return None;
        };
        let mut elements = Vec::with_capacity(array.len());
        for element in array.iter() {
            match parse(element.get_ref()) {
                Ok(parsed) => elements.push(parsed),
                Err(fault) => self.refuse_at(key, element.span(), fault),
            }
        }
        (elements.len() == array.len()).then_some(elements)
    }

    /// A table below this one. An absent one is read too, since its defaults hold.
    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'d, '_>) -> T) -> T {
        let place = (self.name(key), self.location(key));
        let Some(value) = self.value(key) else {
            return Section::open(None, place, self.span.clone(), self.problems, read);
        };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.refuse_at(key, value.span(), value::wrong_type(value.get_ref(), "a table"));
        }
        Section::open(table, place, Some(value.span()), self.problems, read)
    }

    /// A value that is written as text, or as a table if there is more to say. An absent one is read as a table, whose
    /// keys are then absent too.
    pub(super) fn text_or_table<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
        read: impl FnOnce(&mut Section<'d, '_>) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) if value.get_ref().as_table().is_none() => {
                let wanted = |value: &DeValue<'_>| match value.as_str() {
                    Some(_) => value::text(&parse)(value),
                    None => Err(value::wrong_type(value, "a string or a table")),
                };
                self.get(key, wanted)
            }
            Some(_) | None => self.table(key, read),
        }
    }

    /// The tables of `[[key]]`, in order.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'d, '_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let fault = value::wrong_type(value.get_ref(), "a list of tables");
            self.refuse_at(key, value.span(), fault.hint(format!("write `[[{key}]]`")));
            return Vec::new();
        };
        let elements = array.iter().enumerate().filter_map(|(index, element)| {
            let place = (self.name(key), self.location(&format!("{key}/{index}")));
            self.open_value(place, element, &mut read)
        });
        elements.flatten().collect()
    }

    /// The tables of `[key.NAME]`, in order.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Section<'d, '_>) -> Option<T>,
    ) -> Vec<T> {
        let read_one = |section: &mut Section<'d, '_>, entry: TableEntry<'d>| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if entry.name.is_empty() || !entry.name.chars().all(is_name) {
                let message = format!("a name under `{key}` is not made of letters, digits, `-` and `_`");
                section.report(Diagnostic::error(message), Some(entry.span));
            }
            section.descend(entry.name, entry.value, |section| read(entry.name, section)).flatten()
        };
        self.table(key, |section| section.entries(read_one))
    }

    /// Reads every entry of a table whose keys are the operator's own, in order.
    pub(super) fn entries<T>(
        &mut self,
        mut read: impl FnMut(&mut Self, TableEntry<'d>) -> Option<T>,
    ) -> Vec<T> {
        let entries = self.table.map(entries).unwrap_or_default();
        // Taken away, so that `finish` has no key left to complain of.
        self.table = None;
        entries.into_iter().filter_map(|entry| read(self, entry)).collect()
    }

    /// Reads the value of an entry, which must be a table.
    pub(super) fn descend<T>(
        &mut self,
        name: &str,
        value: &'d Spanned<DeValue<'d>>,
        read: impl FnOnce(&mut Section<'d, '_>) -> T,
    ) -> Option<T> {
        self.open_value((self.name(name), self.location(name)), value, read)
    }

    fn open_value<T>(
        &mut self,
        place: (String, String),
        value: &'d Spanned<DeValue<'d>>,
        read: impl FnOnce(&mut Section<'d, '_>) -> T,
    ) -> Option<T> {
        let Some(table) = value.get_ref().as_table() else {
            let Fault { message, hint, .. } = value::wrong_type(value.get_ref(), "a table");
            let (path, location) = place;
            let wrong = Diagnostic::error(format!("`{path}` {message}")).at(value.span());
            self.problems.push(Diagnostic { hint, ..wrong });
            self.problems.broken.push(location);
            return None;
        };
        Some(Section::open(Some(table), place, Some(value.span()), self.problems, read))
    }

    /// The names below `key`, in the order that [`Section::named`] reads them.
    pub(super) fn names(&self, key: &str) -> Vec<(&'d str, Range<usize>)> {
        let table = self.table.and_then(|table| table.get(key)?.get_ref().as_table());
        table.map(entries).unwrap_or_default().into_iter().map(|entry| (entry.name, entry.span)).collect()
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the list is absent or has no element.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value.is_none_or(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty()))
    }

    /// Whether the table itself is there.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key's value is a table, where it may be something shorter too.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.and_then(|table| table.get(key)).is_some_and(|value| value.get_ref().is_table())
    }

    /// Where the table begins; none: it is the whole file.
    pub(super) fn here(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// Where the key's value is; where the table begins if it is absent.
    pub(super) fn span(&self, key: &str) -> Option<Range<usize>> {
        let value = self.table.and_then(|table| table.get(key));
        value.map(Spanned::span).or_else(|| self.span.clone())
    }

    /// How messages name a key.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the key is in the file, as the `needs` of another section's check name it.
    pub(super) fn location(&self, key: &str) -> String {
        format!("{}/{key}", self.location)
    }

    /// Records a contradiction: `` `path.key` `` followed by the fault's message. `needs` are the keys that the check
    /// depends on, relative to this table, or absolute with a `/` in front; with a `/` at the end, all below is meant.
    pub(super) fn refuse(&mut self, key: &str, needs: &[&str], fault: Fault) {
        let diagnostic = self.diagnostic(key, fault);
        self.report_given(needs, diagnostic, self.span(key));
    }

    /// The same, at `other` where the key is left to its default: that is then what the file says.
    pub(super) fn refuse_or(&mut self, key: &str, other: &str, needs: &[&str], fault: Fault) {
        let diagnostic = self.diagnostic(key, fault);
        self.report_given(needs, diagnostic, self.span(if self.has(key) { key } else { other }));
    }

    /// Records that the key's value, or the part of it at `span`, is wrong in itself.
    pub(super) fn refuse_at(&mut self, key: &str, span: Range<usize>, fault: Fault) {
        let needs = fault.needs;
        let diagnostic = self.diagnostic(key, fault);
        self.report_given(needs.as_slice(), diagnostic, Some(span));
        self.problems.broken.push(self.location(key));
    }

    /// Records a problem at `span`, or one of the whole file.
    pub(super) fn report(&mut self, diagnostic: Diagnostic, span: Option<Range<usize>>) {
        self.report_given::<&str>(&[], diagnostic, span);
    }

    /// The same, unless one of the keys `needs` is broken.
    pub(super) fn report_given<N: AsRef<str>>(
        &mut self,
        needs: &[N],
        diagnostic: Diagnostic,
        span: Option<Range<usize>>,
    ) {
        let diagnostic = span.into_iter().fold(diagnostic, Diagnostic::at);
        if needs.is_empty() {
            self.problems.push(diagnostic);
            return;
        }
        let needs = needs.iter().map(AsRef::as_ref).map(|need| match need.starts_with('/') {
            true => need.to_owned(),
            false => self.location(need),
        });
        let needs = needs.collect();
        self.problems.dependent.push((diagnostic, needs));
    }

    fn diagnostic(&self, key: &str, fault: Fault) -> Diagnostic {
        let message = format!("`{}` {}", self.name(key), fault.message);
        Diagnostic { hint: fault.hint, ..Diagnostic::error(message) }
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.push(key);
        #[cfg(test)]
        self.problems.asked.insert(key);
        self.table?.get(key)
    }

    fn finish(self) {
        let unknown = self.table.map(entries).unwrap_or_default();
        let mut misspelt = Vec::new();
        for entry in unknown.into_iter().filter(|entry| !self.asked.contains(&entry.name)) {
            let place = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let meant = value::nearest(entry.name, self.asked.iter().copied());
            let hint = match meant {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", value::listed(&self.asked)),
            };
            let message = format!("unknown key `{}`{place}", entry.name);
            self.problems.push(Diagnostic::error(message).at(entry.span).hint(hint));
            self.problems.broken.push(self.location(entry.name));
            misspelt.extend(meant);
        }
        for key in &self.missing {
            if !misspelt.contains(key) {
                let missing = self.diagnostic(key, Fault::new("is missing"));
                self.problems.push(self.span.iter().cloned().fold(missing, Diagnostic::at));
            }
        }
        let broken: Vec<_> = misspelt.iter().chain(&self.missing).map(|key| self.location(key)).collect();
        self.problems.broken.extend(broken);
    }
}

/// A table's entries in the order of the file; the table itself has them in alphabetical order.
fn entries<'d>(table: &'d DeTable<'d>) -> Vec<TableEntry<'d>> {
    let entry =
        |(key, value): (&'d Spanned<_>, _)| TableEntry { name: key_name(key), span: key.span(), value };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.span.start);
    entries
}

fn key_name<'d>(key: &'d Spanned<toml::de::DeString<'d>>) -> &'d str {
    key.get_ref()
}
