//! Reads one table of the file. A problem with a key is recorded, and reading continues. At the end of the table, the keys
//! that were not read are reported as unknown. So one run finds every problem, and no unknown key is accepted.
//!
//! A check that compares values lists the keys that it depends on. If one of these keys is broken (rejected, missing or
//! misspelt), the check runs on a default, so its result is dropped: the error behind it is already reported.
//!
//! 1. A key becomes broken only together with a reported error, so dropping a dependent problem never accepts a bad file.
//! 2. Contradictions between values do not break keys, so two of them cannot hide each other.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::value::{self, Fault};

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    diagnostics: Vec<Diagnostic>,
    /// Problems that are reported only if none of the keys listed with them is broken.
    dependent: Vec<(Diagnostic, Vec<String>)>,
    /// The locations of broken keys: rejected, missing or misspelt.
    broken: Vec<String>,
    /// Every key that was ever read. A test compares the reference file with it.
    #[cfg(test)]
    pub(super) known_keys: std::collections::BTreeSet<&'static str>,
}

/// One table of the file. If it is absent, so are all of its keys.
#[derive(Debug)]
pub(super) struct Section<'d, 'p> {
    table: Option<&'d DeTable<'d>>,
    /// The name in messages, such as `sessions.main`; empty at the root.
    path: String,
    /// The unique location, such as `/routes/2/headers`; empty at the root.
    location: String,
    /// The table's position in the file; `None` at the root.
    span: Option<Range<usize>>,
    /// The keys that were read.
    known: Vec<&'static str>,
    /// Required keys that are absent. Some may turn out to be misspelt.
    missing: Vec<&'static str>,
    problems: &'p mut Problems,
}

/// An entry of a table whose keys the operator chooses: names, headers, claims.
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
        let is_sound = |needs: &[String]| !needs.iter().any(|need| is_broken(&broken, need));
        let dependent = dependent.into_iter().filter(|(_, needs)| is_sound(needs));
        diagnostics.extend(dependent.map(|(diagnostic, _)| diagnostic));
        diagnostics
    }
}

/// Returns whether the key at `need` or a table around it is broken. If `need` ends with `/`, a broken key below it counts
/// too.
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
            Section { table, path, location, span, known: Vec::new(), missing: Vec::new(), problems };
        let result = read(&mut section);
        section.finish();
        result
    }

    /// Returns the value of a key, if the key is present and `parse` accepts it.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.value(key)?;
        parse(value.get_ref()).map_err(|fault| self.refuse_at(key, value.span(), fault)).ok()
    }

    /// Like [`Section::get`], but the key must be present if the table is.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        if self.is_present() && !self.has(key) {
            self.missing.push(key);
        }
        self.get(key, parse)
    }

    /// Returns the elements of a list, if `parse` accepts all of them. Reports each rejected element.
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

    /// Reads a table inside this one. An absent table is read as one without keys, which yields the defaults.
    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'d, '_>) -> T) -> T {
        let names = (self.name(key), self.location(key));
        let Some(value) = self.value(key) else {
            return Section::open(None, names, self.span.clone(), self.problems, read);
        };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.refuse_at(key, value.span(), value::wrong_type(value.get_ref(), "a table"));
        }
        Section::open(table, names, Some(value.span()), self.problems, read)
    }

    /// Reads a value that is a string or, for more options, a table. An absent value is read as a table without keys.
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

    /// Reads the tables of `[[key]]`, in order.
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
            let names = (self.name(key), self.location(&format!("{key}/{index}")));
            self.open_value(names, element, &mut read)
        });
        elements.flatten().collect()
    }

    /// Reads the tables of `[key.NAME]`, in order.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Section<'d, '_>) -> Option<T>,
    ) -> Vec<T> {
        let read_one = |section: &mut Section<'d, '_>, entry: TableEntry<'d>| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if entry.name.is_empty() || !entry.name.chars().all(is_name) {
                let message = format!("a name under `{key}` may contain only letters, digits, `-` and `_`");
                section.report(Diagnostic::error(message), Some(entry.span));
            }
            section.descend(entry.name, entry.value, |section| read(entry.name, section)).flatten()
        };
        self.table(key, |section| section.entries(read_one))
    }

    /// Reads every entry of a table whose keys the operator chooses, in order.
    pub(super) fn entries<T>(
        &mut self,
        mut read: impl FnMut(&mut Self, TableEntry<'d>) -> Option<T>,
    ) -> Vec<T> {
        let entries = self.table.map(entries).unwrap_or_default();
        // Removed, so that `finish` does not report the entries as unknown keys.
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
        names: (String, String),
        value: &'d Spanned<DeValue<'d>>,
        read: impl FnOnce(&mut Section<'d, '_>) -> T,
    ) -> Option<T> {
        let Some(table) = value.get_ref().as_table() else {
            let Fault { message, hint, .. } = value::wrong_type(value.get_ref(), "a table");
            let (path, location) = names;
            let wrong = Diagnostic::error(format!("`{path}` {message}")).at(value.span());
            self.problems.push(Diagnostic { hint, ..wrong });
            self.problems.broken.push(location);
            return None;
        };
        Some(Section::open(Some(table), names, Some(value.span()), self.problems, read))
    }

    /// Returns the names under `key`, in the order in which [`Section::named`] reads them.
    pub(super) fn names(&self, key: &str) -> Vec<(&'d str, Range<usize>)> {
        let table = self.table.and_then(|table| table.get(key)?.get_ref().as_table());
        table.map(entries).unwrap_or_default().into_iter().map(|entry| (entry.name, entry.span)).collect()
    }

    /// Returns whether the key is present, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Returns whether the list is absent or empty.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value.is_none_or(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty()))
    }

    /// Returns whether the table itself is present.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Returns whether the key's value is a table, for keys that also accept other types.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.and_then(|table| table.get(key)).is_some_and(|value| value.get_ref().is_table())
    }

    /// Returns the table's position in the file; if the table is absent, that of the table around it. `None` for
    /// the root.
    pub(super) fn own_span(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// Returns the position of the key's value, or the table's if the key is absent.
    pub(super) fn span(&self, key: &str) -> Option<Range<usize>> {
        let value = self.table.and_then(|table| table.get(key));
        value.map(Spanned::span).or_else(|| self.span.clone())
    }

    /// Returns a key's name in messages.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Returns a key's location, as the `needs` of another section's check refer to it.
    pub(super) fn location(&self, key: &str) -> String {
        format!("{}/{key}", self.location)
    }

    /// Records a contradiction: `` `path.key` `` followed by the fault's message. `needs` are the keys that the check
    /// depends on, relative to this table, or absolute if they begin with `/`. A `/` at the end includes all keys below.
    pub(super) fn refuse(&mut self, key: &str, needs: &[&str], fault: Fault) {
        let diagnostic = self.diagnostic(key, fault);
        self.report_unless_broken(needs, diagnostic, self.span(key));
    }

    /// Like [`Section::refuse`], but points at `other` if the key is absent and has its default.
    pub(super) fn refuse_or(&mut self, key: &str, other: &str, needs: &[&str], fault: Fault) {
        let diagnostic = self.diagnostic(key, fault);
        self.report_unless_broken(needs, diagnostic, self.span(if self.has(key) { key } else { other }));
    }

    /// Records that the key's value, or the part of it at `span`, is invalid.
    pub(super) fn refuse_at(&mut self, key: &str, span: Range<usize>, fault: Fault) {
        let needs = fault.needs;
        let diagnostic = self.diagnostic(key, fault);
        self.report_unless_broken(needs.as_slice(), diagnostic, Some(span));
        self.problems.broken.push(self.location(key));
    }

    /// Records a problem at `span`, or of the file as a whole.
    pub(super) fn report(&mut self, diagnostic: Diagnostic, span: Option<Range<usize>>) {
        self.report_unless_broken::<&str>(&[], diagnostic, span);
    }

    /// Like [`Section::report`], unless one of the keys `needs` is broken.
    pub(super) fn report_unless_broken<N: AsRef<str>>(
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
        self.known.push(key);
        #[cfg(test)]
        self.problems.known_keys.insert(key);
        self.table?.get(key)
    }

    fn finish(self) {
        let unknown = self.table.map(entries).unwrap_or_default();
        let mut misspelt = Vec::new();
        for entry in unknown.into_iter().filter(|entry| !self.known.contains(&entry.name)) {
            let inside = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let meant = value::nearest(entry.name, self.known.iter().copied());
            let hint = match meant {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys: {}", value::listed(&self.known)),
            };
            let message = format!("unknown key `{}`{inside}", entry.name);
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

/// Returns a table's entries in the order of the file. The table itself sorts them by name.
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
