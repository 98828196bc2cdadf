//! How often an address may do something: a token bucket for each, kept as the one moment at which it would be full.
//!
//! 1. The number of addresses that are remembered is bounded. Who pushes others out only makes them start anew.
//! 2. An address of IPv6 stands for its /64: who has one has all of it.
//! 3. What is refused costs no token, so an address that stops asking is let in again when it was told.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::time::Clock;

/// How many addresses a limiter remembers.
const ADDRESSES: usize = 65_536;
const SECOND: u64 = 1_000_000_000;
/// The longest that an address in debt waits for its next token.
const DEBT: u64 = 10 * SECOND;

/// So many a second on the average, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub per_second: u32,
    /// At least 1.
    pub burst: u32,
}

/// Holds addresses to a rate.
#[derive(Debug)]
pub struct Limiter {
    /// Nanoseconds that a token takes to come.
    interval: u64,
    /// Nanoseconds that a whole bucket takes.
    bucket: u64,
    born: Instant,
    /// When each address's bucket is full, in nanoseconds since `born`.
    full_at: Cache<IpAddr, Arc<AtomicU64>>,
}

/// What an address has to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// As much as there can be.
    All,
    /// So many tokens; at least one.
    Tokens(u64),
}

/// A limiter as it is about one address; without one, there is no limit.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimiter<'l> {
    limiter: Option<&'l Limiter>,
    address: IpAddr,
}

impl Limiter {
    /// Holds every address to `rate`.
    pub fn new(rate: Rate) -> Self {
        let interval = SECOND / u64::from(rate.per_second.max(1));
        let bucket = interval.saturating_mul(u64::from(rate.burst.max(1)));
        Self { interval, bucket, born: Clock.mono(), full_at: Cache::new(ADDRESSES) }
    }

    /// Takes a token of `address`.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let now = self.nanos(now);
        let bucket = self.bucket(address);
        let mut wait = 0;
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now) + self.interval;
            wait = next.saturating_sub(now + self.bucket);
            (wait == 0).then_some(next)
        });
        taken.map(drop).map_err(|_| Duration::from_nanos(wait))
    }

    /// How many addresses it remembers, and how many it may.
    pub fn fill(&self) -> (u64, u64) {
        (self.full_at.weight(), self.full_at.capacity())
    }

    /// What `address` has, all of which stays.
    ///
    /// # Errors
    /// How long it takes until there is a token.
    pub fn balance(&self, address: IpAddr, now: Instant) -> Result<Balance, Duration> {
        let Some(bucket) = self.full_at.get(&subject(address)) else { return Ok(Balance::All) };
        let now = self.nanos(now);
        let (full_at, end) = (bucket.load(Ordering::Relaxed), now + self.bucket);
        if full_at <= now {
            return Ok(Balance::All);
        }
        match end.saturating_sub(full_at) / self.interval {
            0 => Err(Duration::from_nanos(full_at + self.interval - end)),
            tokens => Ok(Balance::Tokens(tokens)),
        }
    }

    /// Takes `tokens` of `address`, whether they are there or not: what it does not have it owes.
    pub fn charge(&self, address: IpAddr, tokens: u32, now: Instant) {
        let now = self.nanos(now);
        let cost = self.interval.saturating_mul(u64::from(tokens));
        let most = now + self.bucket + DEBT;
        let charged = |full_at: u64| Some(full_at.max(now).saturating_add(cost).min(most));
        let _always = self.bucket(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged);
    }

    fn spend(&self, address: IpAddr, now: Instant) {
        let now = self.nanos(now);
        // Never more than the bucket holds: what was spent at once by many is not paid for later.
        let spent = |full_at: u64| Some((full_at.max(now) + self.interval).min(now + self.bucket));
        let _always = self.bucket(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent);
    }

    fn bucket(&self, address: IpAddr) -> Arc<AtomicU64> {
        let subject = subject(address);
        self.full_at.get(&subject).unwrap_or_else(|| {
            // Two that come first at once may lose a token of each other's.
            let bucket = Arc::new(AtomicU64::new(0));
            self.full_at.insert(subject, Arc::clone(&bucket));
            bucket
        })
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX / 4)
    }
}

impl<'l> ClientLimiter<'l> {
    /// `limiter` as it is about `address`.
    pub fn new(limiter: Option<&'l Limiter>, address: IpAddr) -> Self {
        Self { limiter, address }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        self.limiter.map_or(Ok(()), |limiter| limiter.take(self.address, now))
    }

    /// Whether there is a token, which stays.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub fn left(&self, now: Instant) -> Result<(), Duration> {
        self.limiter.map_or(Ok(()), |limiter| limiter.balance(self.address, now).map(drop))
    }

    /// Takes a token if there is one; what has happened has happened.
    pub fn spend(&self, now: Instant) {
        if let Some(limiter) = self.limiter {
            limiter.spend(self.address, now);
        }
    }
}

/// Whom an address stands for.
fn subject(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn limiter(per_second: u32, burst: u32) -> Limiter {
        Limiter::new(Rate { per_second, burst })
    }

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let (limiter, start) = (limiter(10, 3), Clock.mono());
        for _ in 0..3 {
            assert_eq!(limiter.take(CLIENT, start), Ok(()));
        }
        let millis = Duration::from_millis;
        assert_eq!(limiter.take(CLIENT, start), Err(millis(100)));
        assert_eq!(limiter.take(CLIENT, start + millis(40)), Err(millis(60)), "a refusal costs nothing");
        assert_eq!(limiter.take(CLIENT, start + millis(100)), Ok(()));
        assert!(limiter.take(CLIENT, start + millis(100)).is_err());
        assert_eq!(limiter.take("192.0.2.2".parse().unwrap(), start), Ok(()), "others are others");
        let later = start + Duration::from_secs(3600);
        assert_eq!(
            (0..9).filter(|_| limiter.take(CLIENT, later).is_ok()).count(),
            3,
            "a bucket holds no more"
        );
    }

    #[test]
    fn what_was_spent_at_once_is_not_paid_for_later() {
        let (limiter, start) = (limiter(10, 3), Clock.mono());
        let meter = ClientLimiter::new(Some(&limiter), CLIENT);
        assert_eq!(meter.left(start), Ok(()));
        (0..100).for_each(|_| meter.spend(start));
        assert_eq!(meter.left(start), Err(Duration::from_millis(100)));
        assert_eq!(meter.left(start + Duration::from_millis(100)), Ok(()));
        let unlimited = ClientLimiter::new(None, CLIENT);
        (0..100).for_each(|_| unlimited.spend(start));
        assert_eq!((unlimited.left(start), unlimited.take(start)), (Ok(()), Ok(())));
    }

    #[test]
    fn what_is_charged_beyond_the_bucket_is_owed_but_not_for_long() {
        let (limiter, start) = (limiter(10, 3), Clock.mono());
        let millis = Duration::from_millis;
        assert_eq!(limiter.balance(CLIENT, start), Ok(Balance::All));
        limiter.charge(CLIENT, 1, start);
        assert_eq!(limiter.balance(CLIENT, start), Ok(Balance::Tokens(2)));
        assert_eq!(limiter.balance(CLIENT, start + millis(100)), Ok(Balance::All));
        limiter.charge(CLIENT, 4, start);
        assert_eq!(
            limiter.balance(CLIENT, start),
            Err(millis(300)),
            "one for each that was owed, and one to have"
        );
        assert_eq!(limiter.balance(CLIENT, start + millis(300)), Ok(Balance::Tokens(1)));
        (0..10).for_each(|_| limiter.charge(CLIENT, u32::MAX, start));
        assert_eq!(limiter.balance(CLIENT, start), Err(Duration::from_secs(10) + millis(100)));
        assert_eq!(
            limiter.balance("192.0.2.2".parse().unwrap(), start),
            Ok(Balance::All),
            "others are others"
        );
    }

    #[test]
    fn an_ipv6_address_stands_for_its_network() {
        let (limiter, start) = (limiter(1, 1), Clock.mono());
        let take = |address: &str| limiter.take(address.parse().unwrap(), start).is_ok();
        assert!(take("2001:db8::1") && !take("2001:db8::ffff:2") && take("2001:db8:0:1::1"));
        assert!(take("192.0.2.9") && !take("::ffff:192.0.2.9"));
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let (limiter, start) = (limiter(1, 1), Clock.mono());
        for number in 0..200_000_u32 {
            assert!(limiter.take(std::net::Ipv4Addr::from_bits(number).into(), start).is_ok());
        }
        let (used, limit) = limiter.fill();
        assert!(used <= limit && limit <= 2 * ADDRESSES as u64, "{used} of {limit}");
    }
}
