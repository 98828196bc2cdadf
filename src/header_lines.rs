//! Header lines in the form in which the head of an HTTP/1.1 message contains them.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::write_field;

/// Header lines, each with its CRLF (RFC 9112, 5). They are written once, and copied into each head that has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderLines(Vec<u8>);

impl HeaderLines {
    /// Returns an empty list with capacity for `bytes`.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Appends a line.
    pub(crate) fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        write_field(name.as_str(), value.as_bytes(), &mut self.0);
    }

    /// Appends the lines of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// Returns the lines as an HTTP/1.1 head contains them.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Releases unused capacity.
    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Returns the names and values in order. Parses the lines, so it is slower than writing them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        // A value has no line feed, and a name no colon.
        self.0.split(|&byte| byte == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = line.iter().position(|&byte| byte == b':')?;
            let (name, value) = line.split_at_checked(colon)?;
            let name = HeaderName::from_bytes(name).ok()?;
            Some((name, HeaderValue::from_bytes(value.strip_prefix(b": ")?).ok()?))
        })
    }

    /// Inserts the lines into `headers`, replacing headers of the same name.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap) {
        for (name, value) in self.iter() {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_in_order_and_parsed_again() {
        let lines = [("x-a", "1"), ("x-b", ": x: y "), ("x-c", ""), ("x-a", "ü")];
        let lines = lines
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        let mut written = HeaderLines::default();
        written.push(&lines[0].0, &lines[0].1);
        let mut others = HeaderLines::with_capacity(64);
        lines[1..].iter().for_each(|(name, value)| others.push(name, value));
        written.extend(&others);
        assert_eq!(
            String::from_utf8_lossy(written.as_bytes()),
            "x-a: 1\r\nx-b: : x: y \r\nx-c: \r\nx-a: ü\r\n"
        );
        assert_eq!(written.iter().collect::<Vec<_>>(), lines);
        let mut map = HeaderMap::new();
        map.insert("x-c", HeaderValue::from_static("replaced"));
        written.insert_into(&mut map);
        assert_eq!((map.len(), &map["x-a"], &map["x-c"]), (3, &lines[3].1, &lines[2].1));
    }
}
