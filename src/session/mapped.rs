//! Headers that the mappings of routes build from a session's claims, cached with the session.
//!
//! Each mapping has a [`MappingSlot`] among those of its realm. Cached sessions outlive configurations, so a slot contains
//! the edition of the mappings. Headers of another edition are not used, and headers without a slot in the session are
//! built for each request, until the session is read again.

use std::borrow::Cow;
use std::sync::OnceLock;

use http::HeaderName;

use crate::header_lines::HeaderLines;

/// Headers that a route's mapping builds from a session's claims.
pub type Mapped = Result<HeaderLines, MappingTooLarge>;

/// The error of a mapping that exceeds the header budget, with the header at which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingTooLarge(pub HeaderName);

/// The index of a mapping's headers in each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingSlot {
    /// The mapping's number among those of its realm.
    pub number: usize,
    /// Changes when a reload changes the mappings.
    pub edition: u64,
}

/// The cached headers of a session, each with its edition.
#[derive(Debug)]
pub(super) struct MappingCache(Box<[OnceLock<(u64, Mapped)>]>);

impl MappingCache {
    /// Creates a cache with this many slots.
    pub(super) fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| OnceLock::new()).collect())
    }

    /// Returns the headers in `slot`, built by `build` if they are not cached.
    pub(super) fn get_or_build(&self, slot: MappingSlot, build: impl Fn() -> Mapped) -> Cow<'_, Mapped> {
        let Some(cell) = self.0.get(slot.number) else { return Cow::Owned(build()) };
        let (edition, mapped) = cell.get_or_init(|| (slot.edition, build()));
        if *edition == slot.edition { Cow::Borrowed(mapped) } else { Cow::Owned(build()) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_of_another_edition_are_not_used() {
        let cache = MappingCache::new(1);
        let slot = |number, edition| MappingSlot { number, edition };
        let made = |value: &'static str| {
            let mut lines = HeaderLines::default();
            lines.push(&HeaderName::from_static("x-user"), &HeaderValue::from_static(value));
            move || -> Mapped { Ok(lines.clone()) }
        };
        let value = |mapped: Cow<'_, Mapped>| mapped.as_ref().as_ref().unwrap().iter().next().unwrap().1;

        assert_eq!(value(cache.get_or_build(slot(0, 1), made("first"))), "first");
        assert_eq!(value(cache.get_or_build(slot(0, 1), made("again"))), "first");
        assert_eq!(value(cache.get_or_build(slot(0, 2), made("other"))), "other");
        assert_eq!(value(cache.get_or_build(slot(1, 2), made("no slot"))), "no slot");
        assert_eq!(value(cache.get_or_build(slot(0, 1), made("again"))), "first");
    }
}
