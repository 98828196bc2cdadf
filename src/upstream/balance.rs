//! Load balancing: chooses the server for a request. The functions are pure, except that round robin updates credits,
//! which are separate for each worker, and that [`BalanceMethod::RandomTwo`] uses random numbers.

use std::cell::Cell;

use crate::config::BalanceMethod;

/// A server to choose from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'s> {
    /// The index among all servers.
    pub(super) index: usize,
    /// The configured weight, at least 1.
    pub(super) weight: u32,
    /// Requests in flight.
    pub(super) load: usize,
    pub(super) hash: u64,
    /// The current weight in smooth weighted round robin.
    pub(super) credit: &'s Cell<i64>,
}

/// Returns the index of the chosen candidate, or `None` if `candidates` is empty. [`BalanceMethod::Sticky`] chooses the
/// same candidate for the same `affinity`.
pub(super) fn choose(balance: BalanceMethod, candidates: &[Candidate<'_>], affinity: u64) -> Option<usize> {
    let candidate = match (balance, candidates) {
        (_, [] | [_]) => candidates.first(),
        (BalanceMethod::RoundRobin, _) => round_robin(candidates),
        (BalanceMethod::LeastConnections, _) => least_connections(candidates),
        (BalanceMethod::RandomTwo, _) => random_two(candidates),
        (BalanceMethod::Sticky, _) => rendezvous(candidates, affinity),
    };
    candidate.map(|candidate| candidate.index)
}

/// Smooth weighted round robin, as in nginx: candidates are chosen in proportion to their weights, evenly interleaved.
fn round_robin<'s>(candidates: &'s [Candidate<'s>]) -> Option<&'s Candidate<'s>> {
    let mut total = 0;
    for candidate in candidates {
        candidate.credit.set(candidate.credit.get() + i64::from(candidate.weight));
        total += i64::from(candidate.weight);
    }
    // The first candidate with the highest credit.
    let first = candidates
        .iter()
        .reduce(|best, candidate| if candidate.credit.get() > best.credit.get() { candidate } else { best });
    first.inspect(|candidate| candidate.credit.set(candidate.credit.get() - total))
}

/// Returns the candidate with the fewest requests relative to its weight. Ties are broken by round robin.
fn least_connections<'s>(candidates: &'s [Candidate<'s>]) -> Option<&'s Candidate<'s>> {
    let next = round_robin(candidates)?;
    Some(
        candidates
            .iter()
            .fold(next, |best, candidate| if is_less_loaded(candidate, best) { candidate } else { best }),
    )
}

/// Power of two choices: returns the less loaded of two random candidates, which are drawn by weight.
fn random_two<'s>(candidates: &'s [Candidate<'s>]) -> Option<&'s Candidate<'s>> {
    let one = random(candidates.iter())?;
    let other = random(candidates.iter().filter(|candidate| candidate.index != one.index))?;
    Some(if is_less_loaded(other, one) { other } else { one })
}

fn random<'s>(candidates: impl Iterator<Item = &'s Candidate<'s>> + Clone) -> Option<&'s Candidate<'s>> {
    let total: u64 = candidates.clone().map(|candidate| u64::from(candidate.weight)).sum();
    let mut ticket = fastrand::u64(..total.max(1));
    candidates.into_iter().find(|candidate| {
        let is_drawn = ticket < u64::from(candidate.weight);
        ticket = ticket.saturating_sub(u64::from(candidate.weight));
        is_drawn
    })
}

fn is_less_loaded(one: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    // Compares load / weight. Weights are at most 1000.
    one.load.saturating_mul(other.weight as usize) < other.load.saturating_mul(one.weight as usize)
}

/// Weighted rendezvous hashing: each candidate gets a score from the affinity, and the highest score wins. When a server
/// is removed, only its sessions move. A new server gets its share evenly from the others.
fn rendezvous<'s>(candidates: &'s [Candidate<'s>], affinity: u64) -> Option<&'s Candidate<'s>> {
    let score = |candidate: &Candidate<'_>| {
        // The upper 52 bits as a number between 0 and 1, both excluded.
        #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
        let uniform = ((mix(candidate.hash ^ affinity) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        -f64::from(candidate.weight) / uniform.ln()
    };
    candidates.iter().max_by(|one, other| score(one).total_cmp(&score(other)))
}

/// FNV-1a with a finalizer. The hash is the same in every process and on every machine, so that several gateways
/// agree.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finalizer of SplitMix64: every input bit affects every output bit.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates<'s>(servers: &[(u32, usize)], credits: &'s [Cell<i64>]) -> Vec<Candidate<'s>> {
        let candidate = |(index, (&(weight, load), credit)): (usize, (&(u32, usize), &'s Cell<i64>))| {
            let hash = hash(format!("server-{index}").as_bytes());
            Candidate { index, weight, load, hash, credit }
        };
        servers.iter().zip(credits).enumerate().map(candidate).collect()
    }

    fn credits(count: usize) -> Vec<Cell<i64>> {
        (0..count).map(|_| Cell::new(0)).collect()
    }

    #[test]
    fn round_robin_is_weighted_and_smooth() {
        let credits = credits(3);
        let candidates = candidates(&[(5, 0), (1, 0), (1, 0)], &credits);
        let turns: Vec<_> =
            (0..7).map(|_| choose(BalanceMethod::RoundRobin, &candidates, 0).unwrap()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn least_connections_is_weighted_and_breaks_ties_round_robin() {
        let credits = credits(3);
        let choose_least = |loads: [(u32, usize); 3]| {
            choose(BalanceMethod::LeastConnections, &candidates(&loads, &credits), 0).unwrap()
        };
        assert_eq!(choose_least([(1, 4), (1, 3), (1, 5)]), 1);
        assert_eq!(choose_least([(1, 2), (4, 4), (1, 2)]), 1);
        let mut turns = [choose_least([(1, 1); 3]), choose_least([(1, 1); 3]), choose_least([(1, 1); 3])];
        turns.sort_unstable();
        assert_eq!(turns, [0, 1, 2]);
    }

    #[test]
    fn random_two_never_chooses_the_busiest() {
        let credits = credits(3);
        let candidates = candidates(&[(1, 9), (1, 1), (1, 1)], &credits);
        let mut drawn = [0; 3];
        for _ in 0..1000 {
            drawn[choose(BalanceMethod::RandomTwo, &candidates, 0).unwrap()] += 1;
        }
        assert_eq!(drawn[0], 0, "{drawn:?}");
        assert!(drawn[1] > 300 && drawn[2] > 300, "{drawn:?}");
    }

    #[test]
    fn sticky_is_weighted_and_moves_only_sessions_of_a_removed_server() {
        let credits = credits(3);
        let all = candidates(&[(1, 0), (1, 0), (2, 0)], &credits);
        let two = &all[..2];
        let mut shares = [0; 3];
        for session in 0..10_000_u64 {
            let affinity = mix(session);
            let home = choose(BalanceMethod::Sticky, &all, affinity).unwrap();
            shares[home] += 1;
            assert_eq!(choose(BalanceMethod::Sticky, &all, affinity), Some(home));
            // When the third server is removed, only its sessions move.
            if home != 2 {
                assert_eq!(choose(BalanceMethod::Sticky, two, affinity), Some(home));
            }
        }
        for (share, expected) in shares.into_iter().zip([2500_i32, 2500, 5000]) {
            assert!((share - expected).abs() < 250, "{shares:?}");
        }
    }

    #[test]
    fn without_candidates_none_is_chosen() {
        for balance in [
            BalanceMethod::RoundRobin,
            BalanceMethod::LeastConnections,
            BalanceMethod::RandomTwo,
            BalanceMethod::Sticky,
        ] {
            assert_eq!(choose(balance, &[], 0), None);
        }
    }
}
