//! The header fields of a message: a list in the order of the message, for HTTP/1.1 and HTTP/2.
//!
//! 1. A field received as `Name: value` and CRLF is stored as positions in its head: it is not copied, and HTTP/1.1
//!    does not validate it again. A field received in any other form is copied.
//! 2. If a field that is stored as positions is not changed, it is written as it was received, so its name keeps its
//!    case. HTTP does not require that (RFC 9110, 5.1), but some legacy apps do.
//! 3. Lookups are linear. Messages have few fields, and comparing the names of all of them costs less than hashing one.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header fields of a message.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// The head that contains the received fields.
    head: Bytes,
    list: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    name: HeaderName,
    value: FieldValue,
}

#[derive(Clone, Debug)]
enum FieldValue {
    /// The line and the value as received.
    Received { line: Span, value: Span },
    /// Any other value.
    Set(HeaderValue),
}

/// A range of bytes in the head.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl FieldValue {
    /// Returns the value, which may be in `head`.
    fn bytes<'f>(&'f self, head: &'f [u8]) -> &'f [u8] {
        match self {
            Self::Received { value, .. } => value.slice(head),
            Self::Set(value) => value.as_bytes(),
        }
    }
}

impl Span {
    fn new(range: &Range<usize>) -> Self {
        // A position that does not fit is outside every head.
        let fit = |position| u32::try_from(position).unwrap_or(u32::MAX);
        Self { start: fit(range.start), end: fit(range.end) }
    }

    fn slice(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Fields {
    /// Returns an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty list with capacity for `count` fields, some of which will be received in `head`.
    pub(crate) fn received_in(head: Bytes, count: usize) -> Self {
        Self { head, list: Vec::with_capacity(count) }
    }

    /// Returns the head that contains the received fields.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Appends a field of the head, whose parser has validated it. `name_at` and `value_at` are its positions in the
    /// head.
    pub(crate) fn push_received(
        &mut self,
        name: HeaderName,
        name_at: &Range<usize>,
        value_at: &Range<usize>,
    ) {
        let (head, value) = (&self.head, Span::new(value_at));
        let colon = head.get(name_at.end..value_at.start);
        let line_end = head.get(value_at.end..value_at.end + 2);
        let value = if colon == Some(b": ") && line_end == Some(b"\r\n") {
            FieldValue::Received { line: Span::new(&(name_at.start..value_at.end + 2)), value }
        } else {
            // A line in any other form is written anew.
            let value = HeaderValue::from_bytes(value.slice(head));
            FieldValue::Set(value.unwrap_or(HeaderValue::from_static("")))
        };
        self.list.push(Field { name, value });
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the names and values of all fields.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        self.list.iter().map(|field| (&field.name, field.value.bytes(&self.head)))
    }

    /// Returns the names of all fields. The name of a repeated field is repeated.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.list.iter().map(|field| &field.name)
    }

    /// Returns the value of the first field with this name.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// Returns the values of all fields with this name.
    pub fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Returns the values of all fields with this name, as bytes that may be kept.
    pub(crate) fn get_all_shared(&self, name: &HeaderName) -> impl Iterator<Item = Bytes> {
        self.list.iter().filter(move |field| field.name == *name).map(|field| match &field.value {
            FieldValue::Received { value, .. } => self.head.slice_ref(value.slice(&self.head)),
            FieldValue::Set(value) => Bytes::copy_from_slice(value.as_bytes()),
        })
    }

    /// Returns the value of the field with this name, or `None` if it is absent or repeated.
    pub fn single(&self, name: &HeaderName) -> Option<&[u8]> {
        let mut values = self.get_all(name);
        let value = values.next();
        value.filter(|_| values.next().is_none())
    }

    /// Returns the value of the first field with this name, if it is visible ASCII.
    pub fn text(&self, name: &HeaderName) -> Option<&str> {
        self.get(name).and_then(visible_ascii)
    }

    /// Returns whether there is a field with this name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.names().any(|other| other == name)
    }

    /// Appends a field.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.list.push(Field { name, value: FieldValue::Set(value) });
    }

    /// Sets a field. It replaces all fields with the same name, at the place of the first.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        let mut value = Some(value);
        self.list.retain_mut(|field| {
            if field.name != name {
                return true;
            }
            let Some(value) = value.take() else { return false };
            field.value = FieldValue::Set(value);
            true
        });
        if let Some(value) = value {
            self.append(name, value);
        }
    }

    /// Removes all fields with this name.
    pub fn remove(&mut self, name: &HeaderName) {
        self.list.retain(|field| field.name != *name);
    }

    /// Keeps the fields for which `keep` returns `true`.
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &[u8]) -> bool) {
        let head = &self.head;
        self.list.retain(|field| keep(&field.name, field.value.bytes(head)));
    }

    /// Replaces each value of the fields with this name for which `replace` returns another.
    pub fn replace_values(
        &mut self,
        name: &HeaderName,
        mut replace: impl FnMut(&[u8]) -> Option<HeaderValue>,
    ) {
        for field in self.list.iter_mut().filter(|field| field.name == *name) {
            if let Some(value) = replace(field.value.bytes(&self.head)) {
                field.value = FieldValue::Set(value);
            }
        }
    }

    /// Writes the fields as lines of HTTP/1.1 (RFC 9112, 5).
    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        self.write_where(into, |_, _| true);
    }

    /// Writes the fields for which `is_written` returns `true` as lines of HTTP/1.1.
    pub(crate) fn write_where(
        &self,
        into: &mut Vec<u8>,
        mut is_written: impl FnMut(&HeaderName, &[u8]) -> bool,
    ) {
        // Consecutive lines of the head are copied at once.
        let mut run = Span { start: 0, end: 0 };
        for field in &self.list {
            match &field.value {
                FieldValue::Received { line, value } => {
                    if !is_written(&field.name, value.slice(&self.head)) {
                        continue;
                    }
                    if line.start == run.end {
                        run.end = line.end;
                    } else {
                        into.extend_from_slice(run.slice(&self.head));
                        run = *line;
                    }
                }
                FieldValue::Set(value) => {
                    if is_written(&field.name, value.as_bytes()) {
                        into.extend_from_slice(run.slice(&self.head));
                        run = Span { start: 0, end: 0 };
                        write_field(field.name.as_str(), value.as_bytes(), into);
                    }
                }
            }
        }
        into.extend_from_slice(run.slice(&self.head));
    }

    /// Returns the number of bytes that [`write`](Self::write) writes.
    pub(crate) fn written_size(&self) -> usize {
        let sizes = self.list.iter().map(|field| match &field.value {
            FieldValue::Received { line, .. } => line.slice(&self.head).len(),
            FieldValue::Set(value) => field.name.as_str().len() + value.len() + 4,
        });
        sizes.sum()
    }

    /// Returns the fields as a map, for HTTP/2.
    pub fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.list.len());
        for Field { name, value } in self.list {
            let value = match value {
                FieldValue::Set(value) => value,
                FieldValue::Received { value, .. } => {
                    let value = self.head.slice_ref(value.slice(&self.head));
                    // The parser of the head has validated the value.
                    HeaderValue::from_maybe_shared(value).unwrap_or(HeaderValue::from_static(""))
                }
            };
            map.append(name, value);
        }
        map
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Self { head: Bytes::new(), list: Vec::with_capacity(map.len()) };
        let mut last = None;
        // The map yields the name of a repeated field only once.
        for (name, value) in map {
            last = name.or(last);
            if let Some(name) = &last {
                fields.append(name.clone(), value);
            }
        }
        fields
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Self {
        let list = fields.into_iter().map(|(name, value)| Field { name, value: FieldValue::Set(value) });
        Self { head: Bytes::new(), list: list.collect() }
    }
}

/// Returns `value` as text, if it is visible ASCII with spaces and tabs.
pub fn visible_ascii(value: &[u8]) -> Option<&str> {
    let is_visible = value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e));
    if is_visible { std::str::from_utf8(value).ok() } else { None }
}

/// Appends a header line to `into`.
pub(crate) fn write_field(name: &str, value: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(name.as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, HOST, SET_COOKIE};

    use super::*;

    const HEAD: &[u8] =
        b"GET / HTTP/1.1\r\nHOST: a\r\nAccept:  b\r\nSet-Cookie: c=d\r\nset-cookie: e=f\r\n\r\n";

    /// Returns the fields of [`HEAD`].
    fn received() -> Fields {
        let mut fields = Fields::received_in(Bytes::from_static(HEAD), 4);
        let mut start = HEAD.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for line in HEAD[start..].split_inclusive(|&byte| byte == b'\n').filter(|line| line.len() > 2) {
            let colon = line.iter().position(|&byte| byte == b':').unwrap();
            let value = line[colon + 1..].iter().position(|&byte| byte != b' ').unwrap() + colon + 1;
            let name = HeaderName::from_bytes(&line[..colon]).unwrap();
            let end = start + line.len();
            fields.push_received(name, &(start..start + colon), &(start + value..end - 2));
            start = end;
        }
        fields
    }

    fn written(fields: &Fields) -> String {
        let mut bytes = Vec::new();
        fields.write(&mut bytes);
        assert_eq!(bytes.len(), fields.written_size());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn received_lines_are_written_unchanged_and_others_in_canonical_form() {
        let mut fields = received();
        assert_eq!(written(&fields), "HOST: a\r\naccept: b\r\nSet-Cookie: c=d\r\nset-cookie: e=f\r\n");
        fields.append(HOST, HeaderValue::from_static("z"));
        fields.replace_values(&SET_COOKIE, |value| {
            (value == b"c=d").then_some(HeaderValue::from_static("c=g"))
        });
        assert_eq!(
            written(&fields),
            "HOST: a\r\naccept: b\r\nset-cookie: c=g\r\nset-cookie: e=f\r\nhost: z\r\n"
        );
    }

    #[test]
    fn fields_are_found_by_name_in_order() {
        let fields = received();
        assert_eq!((fields.len(), fields.get(&ACCEPT)), (4, Some(&b"b"[..])));
        assert_eq!(fields.get_all(&SET_COOKIE).collect::<Vec<_>>(), [b"c=d", b"e=f"]);
        assert_eq!((fields.single(&HOST), fields.single(&SET_COOKIE)), (Some(&b"a"[..]), None));
        assert!(fields.contains(&HOST) && !Fields::new().contains(&HOST));
    }

    #[test]
    fn insert_replaces_all_fields_of_the_name_at_the_place_of_the_first() {
        let mut fields = received();
        fields.append(HOST, HeaderValue::from_static("z"));
        fields.insert(HOST, HeaderValue::from_static("y"));
        fields.insert(SET_COOKIE, HeaderValue::from_static("x"));
        assert_eq!(written(&fields), "host: y\r\naccept: b\r\nset-cookie: x\r\n");
        fields.remove(&HOST);
        fields.retain(|_, value| value != b"x");
        assert_eq!(written(&fields), "accept: b\r\n");
    }

    #[test]
    fn map_has_the_same_fields() {
        let map = received().into_map();
        assert_eq!((map.len(), &map[HOST]), (4, &HeaderValue::from_static("a")));
        let fields = Fields::from(map);
        assert_eq!(fields.get_all(&SET_COOKIE).collect::<Vec<_>>(), [b"c=d", b"e=f"]);
        assert_eq!(fields.len(), 4);
    }
}
