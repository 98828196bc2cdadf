//! Rate limits per client address: GCRA, a token bucket stored as the time at which it will be full.
//!
//! 1. The number of addresses tracked is bounded. An address that is evicted starts again with a full bucket.
//! 2. All IPv6 addresses of a /64 share one bucket, since a client usually has the whole /64.
//! 3. A rejected request takes no token, so the reported wait is accurate however often the client retries meanwhile.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::time::Clock;

/// Number of addresses that a limiter tracks.
const MAX_ADDRESSES: usize = 65_536;
/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Maximum debt of a bucket, in nanoseconds of refill.
const MAX_DEBT: u64 = 10 * SECOND;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained rate; at least 1.
    pub per_second: u32,
    /// Size of the bucket; at least 1.
    pub burst: u32,
}

/// Limits the rate of each address.
#[derive(Debug)]
pub struct Limiter {
    /// Nanoseconds to refill one token.
    interval: u64,
    /// Nanoseconds to refill an empty bucket.
    bucket: u64,
    created_at: Instant,
    /// The time at which each address's bucket will be full, in nanoseconds since `created_at`.
    full_at: Cache<IpAddr, Arc<AtomicU64>>,
}

/// The tokens available to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The bucket is full.
    All,
    /// The number of tokens; at least one.
    Tokens(u64),
}

/// The limiter of one address, or no limit if `limiter` is `None`.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimiter<'l> {
    limiter: Option<&'l Arc<Limiter>>,
    address: IpAddr,
}

/// A token that was taken from a [`ClientLimiter`]. It is spent unless it is released.
#[derive(Debug)]
pub struct Token(Option<(Arc<Limiter>, IpAddr)>);

impl Limiter {
    /// Creates a limiter that allows each address `rate`.
    pub fn new(rate: Rate) -> Self {
        let interval = SECOND / u64::from(rate.per_second.max(1));
        let bucket = interval.saturating_mul(u64::from(rate.burst.max(1)));
        Self { interval, bucket, created_at: Clock.mono(), full_at: Cache::new(MAX_ADDRESSES) }
    }

    /// Takes one token from the bucket of `address`.
    ///
    /// # Errors
    /// If no token is available, returns the wait for the next one.
    pub fn try_acquire(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
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

    /// Returns the number of addresses tracked, and its limit.
    pub fn usage(&self) -> (u64, u64) {
        (self.full_at.weight(), self.full_at.capacity())
    }

    /// Returns the tokens available to `address` without taking any.
    ///
    /// # Errors
    /// If no token is available, returns the wait for the next one.
    pub fn balance(&self, address: IpAddr, now: Instant) -> Result<Balance, Duration> {
        let Some(bucket) = self.full_at.get(&bucket_key(address)) else { return Ok(Balance::All) };
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

    /// Takes `tokens` from the bucket of `address`, which may go into debt, up to a limit.
    pub fn debit(&self, address: IpAddr, tokens: u32, now: Instant) {
        let now = self.nanos(now);
        let cost = self.interval.saturating_mul(u64::from(tokens));
        let max = now + self.bucket + MAX_DEBT;
        let debited = |full_at: u64| Some(full_at.max(now).saturating_add(cost).min(max));
        let _always = self.bucket(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, debited);
    }

    /// Returns a token to the bucket of `address`.
    fn release(&self, address: IpAddr) {
        // An evicted bucket is full.
        if let Some(bucket) = self.full_at.get(&bucket_key(address)) {
            let released = |full_at: u64| Some(full_at.saturating_sub(self.interval));
            let _always = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, released);
        }
    }

    fn bucket(&self, address: IpAddr) -> Arc<AtomicU64> {
        let key = bucket_key(address);
        self.full_at.get(&key).unwrap_or_else(|| {
            // If two threads create the bucket of an address at once, the tokens taken from one of them are not counted.
            let bucket = Arc::new(AtomicU64::new(0));
            self.full_at.insert(key, Arc::clone(&bucket));
            bucket
        })
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.created_at).as_nanos()).unwrap_or(u64::MAX / 4)
    }
}

impl<'l> ClientLimiter<'l> {
    /// Binds `limiter` to `address`.
    pub fn new(limiter: Option<&'l Arc<Limiter>>, address: IpAddr) -> Self {
        Self { limiter, address }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// If no token is available, returns the wait for the next one.
    pub fn try_acquire(&self, now: Instant) -> Result<Token, Duration> {
        let Some(limiter) = self.limiter else { return Ok(Token(None)) };
        limiter.try_acquire(self.address, now)?;
        Ok(Token(Some((Arc::clone(limiter), self.address))))
    }
}

impl Token {
    /// Returns the token to its limiter.
    pub fn release(self) {
        if let Some((limiter, address)) = self.0 {
            limiter.release(address);
        }
    }
}

/// Returns the rate-limit key: the address, or its /64 for IPv6.
fn bucket_key(address: IpAddr) -> IpAddr {
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
    fn requests_beyond_the_burst_wait_for_the_refill() {
        let (limiter, start) = (limiter(10, 3), Clock.mono());
        for _ in 0..3 {
            assert_eq!(limiter.try_acquire(CLIENT, start), Ok(()));
        }
        let millis = Duration::from_millis;
        assert_eq!(limiter.try_acquire(CLIENT, start), Err(millis(100)));
        assert_eq!(
            limiter.try_acquire(CLIENT, start + millis(40)),
            Err(millis(60)),
            "a rejection takes no token"
        );
        assert_eq!(limiter.try_acquire(CLIENT, start + millis(100)), Ok(()));
        assert!(limiter.try_acquire(CLIENT, start + millis(100)).is_err());
        let other = "192.0.2.2".parse().unwrap();
        assert_eq!(limiter.try_acquire(other, start), Ok(()), "another address has its own bucket");
        let later = start + Duration::from_secs(3600);
        let acquired = (0..9).filter(|_| limiter.try_acquire(CLIENT, later).is_ok()).count();
        assert_eq!(acquired, 3, "a full bucket holds the burst");
    }

    #[test]
    fn released_token_can_be_taken_again() {
        let (limiter, start) = (Arc::new(limiter(10, 3)), Clock.mono());
        let client = ClientLimiter::new(Some(&limiter), CLIENT);
        for _ in 0..100 {
            client.try_acquire(start).unwrap().release();
        }
        let tokens: Vec<_> = (0..9).filter_map(|_| client.try_acquire(start).ok()).collect();
        assert_eq!(tokens.len(), 3);
        let later = start + Duration::from_secs(3600);
        tokens.into_iter().for_each(Token::release);
        assert_eq!((0..9).filter(|_| client.try_acquire(start).is_ok()).count(), 3);
        assert_eq!((0..9).filter(|_| client.try_acquire(later).is_ok()).count(), 3, "more than the burst");
        ClientLimiter::new(None, CLIENT).try_acquire(start).unwrap().release();
    }

    #[test]
    fn debit_puts_the_bucket_into_bounded_debt() {
        let (limiter, start) = (limiter(10, 3), Clock.mono());
        let millis = Duration::from_millis;
        assert_eq!(limiter.balance(CLIENT, start), Ok(Balance::All));
        limiter.debit(CLIENT, 1, start);
        assert_eq!(limiter.balance(CLIENT, start), Ok(Balance::Tokens(2)));
        assert_eq!(limiter.balance(CLIENT, start + millis(100)), Ok(Balance::All));
        limiter.debit(CLIENT, 4, start);
        assert_eq!(limiter.balance(CLIENT, start), Err(millis(300)), "two tokens of debt, and one to take");
        assert_eq!(limiter.balance(CLIENT, start + millis(300)), Ok(Balance::Tokens(1)));
        (0..10).for_each(|_| limiter.debit(CLIENT, u32::MAX, start));
        assert_eq!(limiter.balance(CLIENT, start), Err(Duration::from_secs(10) + millis(100)));
        let other = "192.0.2.2".parse().unwrap();
        assert_eq!(limiter.balance(other, start), Ok(Balance::All), "another address has its own bucket");
    }

    #[test]
    fn addresses_of_an_ipv6_64_share_a_bucket() {
        let (limiter, start) = (limiter(1, 1), Clock.mono());
        let acquire = |address: &str| limiter.try_acquire(address.parse().unwrap(), start).is_ok();
        assert!(acquire("2001:db8::1") && !acquire("2001:db8::ffff:2") && acquire("2001:db8:0:1::1"));
        assert!(acquire("192.0.2.9") && !acquire("::ffff:192.0.2.9"));
    }

    #[test]
    fn number_of_tracked_addresses_is_bounded() {
        let (limiter, start) = (limiter(1, 1), Clock.mono());
        for number in 0..200_000_u32 {
            assert!(limiter.try_acquire(std::net::Ipv4Addr::from_bits(number).into(), start).is_ok());
        }
        let (used, limit) = limiter.usage();
        assert!(used <= limit && limit <= 2 * MAX_ADDRESSES as u64, "{used} of {limit}");
    }
}
