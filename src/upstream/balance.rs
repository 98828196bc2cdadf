//! Which of several servers a request goes to. Pure but for the turns, which each worker keeps of its own.

use std::cell::Cell;

use crate::config::BalanceMethod;

/// A server that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'s> {
    /// Its place among all servers.
    pub(super) index: usize,
    /// At least 1.
    pub(super) weight: u32,
    /// Requests under way.
    pub(super) load: usize,
    pub(super) hash: u64,
    /// How long it has waited for its turn.
    pub(super) credit: &'s Cell<i64>,
}

/// Chooses of `seats`; none if there is none. `affinity` is what [`BalanceMethod::Sticky`] sticks to.
pub(super) fn choose(balance: BalanceMethod, seats: &[Candidate<'_>], affinity: u64) -> Option<usize> {
    let seat = match (balance, seats) {
        (_, [] | [_]) => seats.first(),
        (BalanceMethod::RoundRobin, _) => in_turn(seats),
        (BalanceMethod::LeastConnections, _) => least(seats),
        (BalanceMethod::RandomTwo, _) => random_two(seats),
        (BalanceMethod::Sticky, _) => rendezvous(seats, affinity),
    };
    seat.map(|seat| seat.index)
}

/// The smooth weighted round robin: each waits as long as its weight says, and turns of one do not come in a row.
fn in_turn<'s>(seats: &'s [Candidate<'s>]) -> Option<&'s Candidate<'s>> {
    let mut total = 0;
    for seat in seats {
        seat.credit.set(seat.credit.get() + i64::from(seat.weight));
        total += i64::from(seat.weight);
    }
    // The first of those that have waited longest.
    let first =
        seats.iter().reduce(|best, seat| if seat.credit.get() > best.credit.get() { seat } else { best });
    first.inspect(|seat| seat.credit.set(seat.credit.get() - total))
}

/// The one with the least to do; of several, in turn.
fn least<'s>(seats: &'s [Candidate<'s>]) -> Option<&'s Candidate<'s>> {
    let turn = in_turn(seats)?;
    Some(seats.iter().fold(turn, |best, seat| if is_lighter(seat, best) { seat } else { best }))
}

/// The lighter of two that are drawn by weight.
fn random_two<'s>(seats: &'s [Candidate<'s>]) -> Option<&'s Candidate<'s>> {
    let one = draw(seats.iter())?;
    let other = draw(seats.iter().filter(|seat| seat.index != one.index))?;
    Some(if is_lighter(other, one) { other } else { one })
}

fn draw<'s>(seats: impl Iterator<Item = &'s Candidate<'s>> + Clone) -> Option<&'s Candidate<'s>> {
    let total: u64 = seats.clone().map(|seat| u64::from(seat.weight)).sum();
    let mut ticket = fastrand::u64(..total.max(1));
    seats.into_iter().find(|seat| {
        let won = ticket < u64::from(seat.weight);
        ticket = ticket.saturating_sub(u64::from(seat.weight));
        won
    })
}

fn is_lighter(one: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    // Products of a count and a weight of at most 1000.
    one.load.saturating_mul(other.weight as usize) < other.load.saturating_mul(one.weight as usize)
}

/// Weighted rendezvous hashing: every server draws a number from the affinity, and the highest wins. A server that
/// leaves takes only its own with it, and one that comes takes its share evenly from all others.
fn rendezvous<'s>(seats: &'s [Candidate<'s>], affinity: u64) -> Option<&'s Candidate<'s>> {
    let score = |seat: &Candidate<'_>| {
        // The upper 52 bits as a number between 0 and 1, neither of them included.
        #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
        let drawn = ((mix(seat.hash ^ affinity) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        -f64::from(seat.weight) / drawn.ln()
    };
    seats.iter().max_by(|one, other| score(one).total_cmp(&score(other)))
}

/// FNV-1a, mixed: the same in every process and on every machine, so that several gateways agree.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The end of splitmix64, which spreads every bit over all.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats<'s>(servers: &[(u32, usize)], credits: &'s [Cell<i64>]) -> Vec<Candidate<'s>> {
        let seat = |(index, (&(weight, load), credit)): (usize, (&(u32, usize), &'s Cell<i64>))| {
            let hash = hash(format!("server-{index}").as_bytes());
            Candidate { index, weight, load, hash, credit }
        };
        servers.iter().zip(credits).enumerate().map(seat).collect()
    }

    fn credits(count: usize) -> Vec<Cell<i64>> {
        (0..count).map(|_| Cell::new(0)).collect()
    }

    #[test]
    fn turns_go_round_by_weight_and_not_in_a_row() {
        let credits = credits(3);
        let seats = seats(&[(5, 0), (1, 0), (1, 0)], &credits);
        let turns: Vec<_> = (0..7).map(|_| choose(BalanceMethod::RoundRobin, &seats, 0).unwrap()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_chosen_and_equals_take_turns() {
        let credits = credits(3);
        let least = |loads: [(u32, usize); 3]| {
            choose(BalanceMethod::LeastConnections, &seats(&loads, &credits), 0).unwrap()
        };
        assert_eq!(least([(1, 4), (1, 3), (1, 5)]), 1);
        assert_eq!(least([(1, 2), (4, 4), (1, 2)]), 1);
        let mut turns = [least([(1, 1); 3]), least([(1, 1); 3]), least([(1, 1); 3])];
        turns.sort_unstable();
        assert_eq!(turns, [0, 1, 2]);
    }

    #[test]
    fn of_two_at_random_the_busier_is_never_chosen() {
        let credits = credits(3);
        let seats = seats(&[(1, 9), (1, 1), (1, 1)], &credits);
        let mut drawn = [0; 3];
        for _ in 0..1000 {
            drawn[choose(BalanceMethod::RandomTwo, &seats, 0).unwrap()] += 1;
        }
        assert_eq!(drawn[0], 0, "{drawn:?}");
        assert!(drawn[1] > 300 && drawn[2] > 300, "{drawn:?}");
    }

    #[test]
    fn sessions_stick_by_weight_and_few_move() {
        let credits = credits(3);
        let all = seats(&[(1, 0), (1, 0), (2, 0)], &credits);
        let two = &all[..2];
        let mut shares = [0; 3];
        for session in 0..10_000_u64 {
            let affinity = mix(session);
            let home = choose(BalanceMethod::Sticky, &all, affinity).unwrap();
            shares[home] += 1;
            assert_eq!(choose(BalanceMethod::Sticky, &all, affinity), Some(home));
            // Only those of the third move when it leaves.
            if home != 2 {
                assert_eq!(choose(BalanceMethod::Sticky, two, affinity), Some(home));
            }
        }
        for (share, expected) in shares.into_iter().zip([2500_i32, 2500, 5000]) {
            assert!((share - expected).abs() < 250, "{shares:?}");
        }
    }

    #[test]
    fn where_there_is_none_none_is_chosen() {
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
