//! `[sessions.NAME.layout]`, resolved: how a framework encodes its rows and its cookie. Most presets are layouts with fixed
//! values.

use std::fmt;

use crate::item::KeyType;

/// A layout of rows and cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutConfig {
    /// The value of `format`: `layout`, or a preset's name.
    pub name: &'static str,
    /// The encoding of the cookie.
    pub cookie: CookieCodec,
    /// The form of session ids.
    pub ids: IdKind,
    /// The value of the row's key.
    pub key: KeyTemplate,
    /// The type of the key attribute.
    pub key_type: KeyType,
    /// The attribute with the payload. `None` makes every other attribute of the row a claim.
    pub payload: Option<String>,
    /// The encoding of the payload.
    pub codec: PayloadCodec,
    /// An attribute and its value in rows of sessions. A row with another value is not a session.
    pub marker: Option<(&'static str, &'static str)>,
    /// The attribute with the version. `None` uses a fingerprint of the payload as the version.
    pub version: Option<String>,
    /// The attribute with the idle deadline. `None` ends a session `timeout` after its creation.
    pub expires: Option<String>,
    /// The attribute with the time of creation.
    pub created: Option<String>,
    /// The encoding of both times. [`TimeRule::Rack`] and [`TimeRule::Web`] fix that of the creation time instead.
    pub unit: TimeUnit,
    /// The framework's rules for the times.
    pub rule: TimeRule,
}

impl LayoutConfig {
    /// Maximum length of an id. A partition key in DynamoDB has at most 2048 bytes.
    pub const MAX_ID_LENGTH: usize = 1024;
}

/// An encoding of the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieCodec {
    /// The id alone.
    Plain,
    /// express-session: `s:id.mac`, percent-encoded. The payload contains the cookie's settings as `cookie`.
    Express,
    /// The cookie-signature package: `id.mac`, percent-encoded.
    CookieSignature,
    /// itsdangerous: `id.mac`.
    Itsdangerous(Signer),
    /// `id/version`, with the version of the row.
    IdVersion,
    /// Rack: `mac--id`. The whole value is the row's key.
    RackHmac,
    /// AdonisJS: `s:message.mac`, with the id inside the message. The payload is wrapped in the same way.
    Adonis,
}

/// The settings of itsdangerous' `Signer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The defaults: salt `itsdangerous.Signer`, key derivation `django-concat`.
    Default,
    /// The defaults, and the whole cookie value is the row's key.
    Whole,
    /// Flask-Session: salt `flask-session`, key derivation `hmac`.
    Flask,
}

/// The form of session ids: how new ones are generated, and which unsigned ones are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// 24 random bytes in base64url, like Node.js's uid-safe.
    Uid,
    /// 32 random bytes in base64url, like Python's `token_urlsafe()`.
    Token,
    /// 32 random bytes in hex.
    Hex,
    /// A random UUID.
    Uuid,
    /// 32 lower-case letters and digits, like Django.
    Django,
    /// The form that the configuration declares.
    Declared(DeclaredIds),
}

/// `ids = { length = [8, 64], alphabet = "A-Za-z0-9" }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclaredIds {
    /// Minimum length of an id.
    pub min_length: usize,
    /// Maximum length of an id.
    pub max_length: usize,
    /// The characters of ids.
    pub alphabet: Alphabet,
}

/// A set of visible ASCII characters that ids consist of. Bit `n` stands for the character with code `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alphabet(u128);

impl Alphabet {
    /// The default: base64url, and the punctuation that apps use between the parts of an id.
    pub const STRICT: Self =
        Self::from_bytes(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.,:");

    const fn from_bytes(bytes: &[u8]) -> Self {
        let mut set = 0;
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            set |= 1 << (*byte & 0x7f);
            rest = tail;
        }
        Self(set)
    }

    /// Parses characters and ranges of them, such as `a-z0-9.`. A `-` at either end is a literal.
    ///
    /// # Errors
    /// Returns a message if the text is not an alphabet of at least two characters.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut set = 0;
        let mut rest = text.as_bytes();
        loop {
            let (range, tail) = match rest {
                [first, b'-', last, tail @ ..] => (*first..=*last, tail),
                [one, tail @ ..] => (*one..=*one, tail),
                [] => break,
            };
            if range.is_empty() {
                return Err("contains a range that ends before it begins");
            }
            for byte in range {
                // RFC 6265, 4.1.1, and the comma, which PHP's ids may contain.
                if !byte.is_ascii_graphic() || matches!(byte, b'"' | b';' | b'\\') {
                    return Err("contains a character that cookie values cannot contain");
                }
                set |= 1 << byte;
            }
            rest = tail;
        }
        let alphabet = Self(set);
        if alphabet.len() < 2 { Err("contains fewer than two characters") } else { Ok(alphabet) }
    }

    /// Returns whether `byte` is one of the characters.
    pub fn contains(self, byte: u8) -> bool {
        byte.is_ascii() && self.0 & (1 << byte) != 0
    }

    /// Returns the characters in the order of their codes.
    pub fn bytes(self) -> impl Iterator<Item = u8> {
        (0..0x7f).filter(move |byte| self.contains(*byte))
    }

    /// Returns the number of characters.
    #[expect(clippy::len_without_is_empty, reason = "an alphabet is never empty")]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }
}

impl fmt::Display for Alphabet {
    /// Formats the alphabet so that [`Alphabet::parse`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.bytes().filter(|byte| *byte != b'-').peekable();
        while let Some(first) = bytes.next() {
            let mut last = first;
            while bytes.peek() == Some(&(last + 1)) {
                last = bytes.next().unwrap_or(last);
            }
            match last - first {
                0 => write!(f, "{}", char::from(first))?,
                1 => write!(f, "{}{}", char::from(first), char::from(last))?,
                _ => write!(f, "{}-{}", char::from(first), char::from(last))?,
            }
        }
        f.write_str(if self.contains(b'-') { "-" } else { "" })
    }
}

/// `key = "sess:{id}"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    /// The text before the id.
    pub before: String,
    /// The text after the id.
    pub after: String,
}

/// An encoding of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadCodec {
    /// A JSON object, in a string or in bytes.
    Json,
    /// DynamoDB's own types.
    Map,
    /// MessagePack. JSON in bytes is also read, as Flask-Session does.
    Msgpack,
}

/// An encoding of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Unix seconds, with an optional fraction.
    Seconds,
    /// Unix milliseconds.
    Millis,
    /// ISO 8601, in a string.
    Iso8601,
}

/// A framework's rules for the times in its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRule {
    /// A reissue sets the deadline. A row without one ends `timeout` after its creation, or never if that is unknown.
    Deadline,
    /// Like `Deadline`, but a row without a deadline is not a session.
    Required,
    /// The framework never moves the deadline, so the gateway does not either.
    Fixed,
    /// aws-sessionstore-dynamodb: the default deadline is meaningless, so `updated_at` decides.
    Rack,
    /// dynamodb-session-web: each row has its own timeouts.
    Web,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn alphabets_are_characters_and_ranges() {
        for (text, shown) in [
            ("a-z0-9", "0-9a-z"),
            ("zyx", "x-z"),
            ("-ab", "ab-"),
            ("a-c-e", "a-ce-"),
            ("+--", "+,-"),
            (".:-", ".:-"),
            ("!-!#-&", "!#-&"),
        ] {
            assert_eq!(
                Alphabet::parse(text).map(|alphabet| alphabet.to_string()).as_deref(),
                Ok(shown),
                "{text}"
            );
        }
        assert_eq!(Alphabet::STRICT.to_string(), ",.0-:A-Z_a-z-");
        assert_eq!(Alphabet::parse("z-a"), Err("contains a range that ends before it begins"));
        for text in ["a b", "a;b", "a\\b", "a\"b", "é", " -~", "a\u{7f}"] {
            assert_eq!(
                Alphabet::parse(text),
                Err("contains a character that cookie values cannot contain"),
                "{text}"
            );
        }
        for text in ["a", "aa", "-", "a-a"] {
            assert_eq!(Alphabet::parse(text), Err("contains fewer than two characters"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn displayed_alphabet_parses_to_itself(text in "[!-~]{1,12}") {
            if let Ok(alphabet) = Alphabet::parse(&text) {
                prop_assert_eq!(Alphabet::parse(&alphabet.to_string()), Ok(alphabet));
                prop_assert_eq!(u32::try_from(alphabet.bytes().count()), Ok(alphabet.len()));
            }
        }

        #[test]
        fn parsing_any_text_does_not_panic(text in any::<String>()) {
            let _ = Alphabet::parse(&text);
        }
    }
}
