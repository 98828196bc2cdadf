//! `[sessions.NAME.layout]`, resolved: where a framework's rows and its cookie say what. The presets are layouts that
//! are filled in already.

use std::fmt;

use crate::item::KeyType;

/// A layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutConfig {
    /// What the configuration calls the format: `layout`, or a preset's name.
    pub name: &'static str,
    /// How the cookie is written.
    pub cookie: CookieCodec,
    /// How ids are made.
    pub ids: IdKind,
    /// The row's key.
    pub key: KeyTemplate,
    /// The type of the key attribute.
    pub key_type: KeyType,
    /// The attribute of the payload; none: every attribute of the row is a claim.
    pub payload: Option<String>,
    /// How the payload is written.
    pub codec: PayloadCodec,
    /// An attribute that, where it is there, has this text in a session's row.
    pub marker: Option<(&'static str, &'static str)>,
    /// The attribute of the version; none: versions are fingerprints of the payload.
    pub version: Option<String>,
    /// The attribute of the idle deadline; none: a session ends its timeout after its creation.
    pub expires: Option<String>,
    /// The attribute of the moment of creation.
    pub created: Option<String>,
    /// How the two are written.
    pub unit: TimeUnit,
    /// What else there is to their meaning.
    pub rule: TimeRule,
}

impl LayoutConfig {
    /// The most characters that an id may have; a key of DynamoDB's holds 2048 bytes.
    pub const LONGEST_ID: usize = 1024;
}

/// How the cookie is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieCodec {
    /// The id.
    Plain,
    /// express-session: `s:id.mac`, percent-encoded; the session's own settings are in the payload, as `cookie`.
    Express,
    /// The cookie-signature package: `id.mac`, percent-encoded.
    CookieSignature,
    /// itsdangerous: `id.mac`.
    Itsdangerous(Signer),
    /// `id/version`, where the version is the row's.
    IdVersion,
    /// Rack: `mac--id`, and all of it is the key.
    RackHmac,
    /// AdonisJS: `s:message.mac`, where the message holds the id; the payload is wrapped likewise.
    Adonis,
}

/// A way to use itsdangerous' `Signer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// As it is by default: salt `itsdangerous.Signer`, key derivation `django-concat`.
    Default,
    /// The same, where the row's key is the whole cookie.
    Whole,
    /// Flask-Session's: salt `flask-session`, key derivation `hmac`.
    Flask,
}

/// How ids are made, and so what an unsigned one looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// 24 random bytes in base64url: uid-safe's.
    Uid,
    /// 32 random bytes in base64url: Python's `token_urlsafe()`.
    Token,
    /// 32 random bytes in hex.
    Hex,
    /// A random UUID.
    Uuid,
    /// 32 lower-case letters and digits: Django's.
    Django,
    /// As the configuration says.
    Declared(DeclaredIds),
}

/// `ids = { length = [8, 64], alphabet = "A-Za-z0-9" }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclaredIds {
    /// The fewest characters of an id.
    pub shortest: usize,
    /// The most characters of an id.
    pub longest: usize,
    /// The characters.
    pub alphabet: Alphabet,
}

/// Characters that ids are made of: visible ASCII. Bit `n` stands for the character of code `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alphabet(u128);

impl Alphabet {
    /// What ids are made of unless it is known better: base64url, and what apps put between the parts of an id.
    pub const STRICT: Self = Self::of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.,:");

    const fn of(bytes: &[u8]) -> Self {
        let mut set = 0;
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            set |= 1 << (*byte & 0x7f);
            rest = tail;
        }
        Self(set)
    }

    /// Parses characters and ranges of them, such as `a-z0-9.`; a `-` at either end is itself.
    ///
    /// # Errors
    /// Returns what is wrong with it.
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
                return Err("holds a range that ends before it begins");
            }
            for byte in range {
                // RFC 6265, 4.1.1, and the comma, which PHP's ids may hold.
                if !byte.is_ascii_graphic() || matches!(byte, b'"' | b';' | b'\\') {
                    return Err("holds what no cookie's value may hold");
                }
                set |= 1 << byte;
            }
            rest = tail;
        }
        let alphabet = Self(set);
        if alphabet.len() < 2 { Err("holds fewer than two characters") } else { Ok(alphabet) }
    }

    /// Whether `byte` is one of the characters.
    pub fn contains(self, byte: u8) -> bool {
        byte.is_ascii() && self.0 & (1 << byte) != 0
    }

    /// The characters in the order of their codes.
    pub fn bytes(self) -> impl Iterator<Item = u8> {
        (0..0x7f).filter(move |byte| self.contains(*byte))
    }

    /// How many characters there are.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }
}

impl fmt::Display for Alphabet {
    /// As [`Alphabet::parse`] reads it.
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
    /// Before the id.
    pub before: String,
    /// After it.
    pub after: String,
}

/// How the payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadCodec {
    /// A JSON object, in a string or in bytes.
    Json,
    /// DynamoDB's own types.
    Map,
    /// MessagePack; JSON in bytes is read, too, as Flask-Session does.
    Msgpack,
}

/// How a moment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Unix seconds, perhaps with a fraction.
    Seconds,
    /// Unix milliseconds.
    Millis,
    /// ISO 8601, in a string.
    Iso8601,
}

/// What else there is to the meaning of the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRule {
    /// Nothing: a reissue sets the deadline. A row without one never ends.
    Deadline,
    /// A row without a deadline is no session.
    Required,
    /// The framework never moves the deadline, so neither do we.
    Fixed,
    /// aws-sessionstore-dynamodb: the deadline is nonsense by default, the last activity in `updated_at` is not.
    Rack,
    /// dynamodb-session-web: each row has timeouts of its own.
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
        assert_eq!(Alphabet::parse("z-a"), Err("holds a range that ends before it begins"));
        for text in ["a b", "a;b", "a\\b", "a\"b", "é", " -~", "a\u{7f}"] {
            assert_eq!(Alphabet::parse(text), Err("holds what no cookie's value may hold"), "{text}");
        }
        for text in ["a", "aa", "-", "a-a"] {
            assert_eq!(Alphabet::parse(text), Err("holds fewer than two characters"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn alphabet_reads_back_from_what_it_shows(text in "[!-~]{1,12}") {
            if let Ok(alphabet) = Alphabet::parse(&text) {
                prop_assert_eq!(Alphabet::parse(&alphabet.to_string()), Ok(alphabet));
                prop_assert_eq!(u32::try_from(alphabet.bytes().count()), Ok(alphabet.len()));
            }
        }

        #[test]
        fn no_alphabet_panics(text in any::<String>()) {
            let _ = Alphabet::parse(&text);
        }
    }
}
