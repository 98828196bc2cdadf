//! What routes' mappings made of a session, remembered with it.
//!
//! A mapping has a [`MappingSlot`] among those of its realm. Sessions outlive configurations, so a place names the edition of
//! the mappings that it belongs to: what another edition left there is not used, and what has no place yet is made
//! anew each time, until the session is read again.

use std::borrow::Cow;
use std::sync::OnceLock;

use http::{HeaderName, HeaderValue};

/// The headers that one route's mapping makes of a session's claims.
pub type Mapped = Result<Box<[(HeaderName, HeaderValue)]>, MappingTooLarge>;

/// A mapping that exceeds the header budget, at this header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingTooLarge(pub HeaderName);

/// Where sessions remember what a mapping makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingSlot {
    /// The mapping's number among those of its realm.
    pub number: usize,
    /// Which routes it is a number of.
    pub edition: u64,
}

/// A session's memory.
#[derive(Debug)]
pub(super) struct Memory(Box<[OnceLock<(u64, Mapped)>]>);

impl Memory {
    /// One with room for `mappings`.
    pub(super) fn new(mappings: usize) -> Self {
        Self((0..mappings).map(|_| OnceLock::new()).collect())
    }

    /// What is remembered at `place`, or what `make` makes.
    pub(super) fn at(&self, place: MappingSlot, make: impl Fn() -> Mapped) -> Cow<'_, Mapped> {
        let Some(cell) = self.0.get(place.number) else { return Cow::Owned(make()) };
        let (edition, mapped) = cell.get_or_init(|| (place.edition, make()));
        if *edition == place.edition { Cow::Borrowed(mapped) } else { Cow::Owned(make()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_edition_left_is_not_used() {
        let memory = Memory::new(1);
        let place = |number, edition| MappingSlot { number, edition };
        let made = |value: &'static str| {
            let header = (HeaderName::from_static("x-user"), HeaderValue::from_static(value));
            move || -> Mapped { Ok(Box::new([header.clone()])) }
        };
        let value = |mapped: Cow<'_, Mapped>| mapped.as_ref().as_ref().unwrap()[0].1.clone();

        assert_eq!(value(memory.at(place(0, 1), made("first"))), "first");
        assert_eq!(value(memory.at(place(0, 1), made("again"))), "first");
        assert_eq!(value(memory.at(place(0, 2), made("other"))), "other");
        assert_eq!(value(memory.at(place(1, 2), made("no room"))), "no room");
        assert_eq!(value(memory.at(place(0, 1), made("again"))), "first");
    }
}
