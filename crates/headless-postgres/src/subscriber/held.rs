//! What a member was given and has not settled, as far as it knows.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
};

use headless_abstractions::{DeliveryToken, Error, ErrorKind};

use crate::transport::clock::Moment;

/// How many deliveries are remembered as lost, or as overdue and perhaps lost; of older ones nothing is known.
const REMEMBERED: usize = 16_384;

/// Tokens are unique in the process, so that one of another subscriber is never mistaken.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Where a delivery is on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) part: i32,
    pub(super) epoch: i64,
    pub(super) place: i64,
}

/// An unsettled delivery.
#[derive(Debug)]
struct Lent {
    place: Place,
    /// When it comes back by itself; on an ordered topic the hold on the partition says so instead.
    until: Option<Moment>,
    /// Its time has passed by our clock. The server may still know it as ours.
    is_overdue: bool,
    /// A settlement of it is under way.
    is_settling: bool,
}

/// What a member was given and has not settled.
#[derive(Debug, Default)]
pub(super) struct Held {
    lent: BTreeMap<u64, Lent>,
    deadlines: BTreeSet<(Moment, u64)>,
    overdue: VecDeque<u64>,
    lost: BTreeSet<u64>,
    /// How many count against the prefetch: of unordered topics, and of each partition.
    shared: usize,
    of_part: BTreeMap<i32, usize>,
}

impl Held {
    /// Notes a delivery.
    pub(super) fn lend(&mut self, place: Place, until: Option<Moment>) -> DeliveryToken {
        let token = NEXT.fetch_add(1, Ordering::Relaxed);
        match until {
            Some(until) => {
                self.deadlines.insert((until, token));
                self.shared += 1;
            }
            None => *self.of_part.entry(place.part).or_default() += 1,
        }
        let lent = Lent {
            place,
            until,
            is_overdue: false,
            is_settling: false,
        };
        self.lent.insert(token, lent);
        DeliveryToken::new(token)
    }

    /// How many of unordered topics are unsettled.
    pub(super) fn shared(&self) -> usize {
        self.shared
    }

    /// How many of each partition are unsettled.
    pub(super) fn of_parts(&self) -> impl Iterator<Item = (i32, usize)> {
        self.of_part.iter().map(|(part, count)| (*part, *count))
    }

    /// The epochs of everything that it knows.
    pub(super) fn epochs(&self) -> BTreeSet<i64> {
        self.lent.values().map(|lent| lent.place.epoch).collect()
    }

    /// Stops counting what has come back by itself.
    pub(super) fn expire(&mut self, now: Moment) {
        while let Some((until, token)) = self.deadlines.first().copied()
            && until <= now
        {
            self.deadlines.pop_first();
            if let Some(lent) = self.lent.get_mut(&token) {
                lent.is_overdue = true;
                self.shared -= 1;
                self.overdue.push_back(token);
            }
        }
        while self.overdue.len() > REMEMBERED {
            if let Some(token) = self.overdue.pop_front() {
                self.lent.remove(&token);
            }
        }
    }

    /// Whether a delivery is unsettled and in time.
    pub(super) fn is_good(&self, token: DeliveryToken) -> bool {
        self.lent.get(&token.get()).is_some_and(|lent| !lent.is_overdue)
    }

    /// Where a delivery is that is to be settled now. Nobody else settles it until [`put_back`](Self::put_back).
    pub(super) fn begin(&mut self, token: DeliveryToken) -> Result<Place, Error> {
        match self.lent.get_mut(&token.get()) {
            Some(lent) if !lent.is_settling => {
                lent.is_settling = true;
                Ok(lent.place)
            }
            _ => Err(self.missing(token)),
        }
    }

    /// The settlement did not happen, as far as is known.
    pub(super) fn put_back(&mut self, token: DeliveryToken) {
        if let Some(lent) = self.lent.get_mut(&token.get()) {
            lent.is_settling = false;
        }
    }

    /// The delivery is settled.
    pub(super) fn remove(&mut self, token: DeliveryToken) {
        let Some(lent) = self.lent.remove(&token.get()) else {
            return;
        };
        if lent.is_overdue {
            self.overdue.retain(|of| *of != token.get());
        } else if let Some(until) = lent.until {
            self.deadlines.remove(&(until, token.get()));
            self.shared -= 1;
        } else if let Some(count) = self.of_part.get_mut(&lent.place.part) {
            *count -= 1;
            if *count == 0 {
                self.of_part.remove(&lent.place.part);
            }
        }
    }

    /// The delivery has gone to another.
    pub(super) fn lose(&mut self, token: DeliveryToken) {
        self.remove(token);
        self.lost.insert(token.get());
        if self.lost.len() > REMEMBERED {
            self.lost.pop_first();
        }
    }

    /// All deliveries of a part have gone.
    pub(super) fn lose_part(&mut self, part: i32) {
        let of_part = self.lent.iter().filter(|(_, lent)| lent.place.part == part);
        let tokens: Vec<u64> = of_part.map(|(token, _)| *token).collect();
        for token in tokens {
            self.lose(DeliveryToken::new(token));
        }
    }

    /// Where a delivery is, and whether it is of an unordered topic.
    pub(super) fn find(&self, token: DeliveryToken) -> Result<(Place, bool), Error> {
        match self.lent.get(&token.get()) {
            Some(lent) if !lent.is_settling => Ok((lent.place, lent.until.is_some())),
            _ => Err(self.missing(token)),
        }
    }

    /// The delivery stays until then, never for less than before.
    pub(super) fn extend(&mut self, token: DeliveryToken, until: Moment) {
        let Some(lent) = self.lent.get_mut(&token.get()) else {
            return;
        };
        let Some(before) = lent.until else {
            return;
        };
        if lent.is_overdue {
            lent.is_overdue = false;
            self.overdue.retain(|of| *of != token.get());
            self.shared += 1;
        } else {
            self.deadlines.remove(&(before, token.get()));
        }
        let until = before.max(until);
        lent.until = Some(until);
        self.deadlines.insert((until, token.get()));
    }

    /// Why there is no unsettled delivery with this token.
    fn missing(&self, token: DeliveryToken) -> Error {
        if self.lost.contains(&token.get()) {
            lease_lost()
        } else {
            Error::new(
                ErrorKind::NotFound,
                "the token was never given to this subscriber or is settled",
            )
        }
    }
}

pub(super) fn lease_lost() -> Error {
    Error::new(
        ErrorKind::LeaseLost,
        "the delivery went back to the group before it was settled",
    )
}
