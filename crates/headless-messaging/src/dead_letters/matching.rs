//! Changing all dead letters that match a filter, page by page.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use headless_abstractions::{
    DeadId, DeadLetter, DeadLetterFilter, ErrorKind, Origin, Redrive, Redriven, Result,
};

use super::{DeadLetters, PAGE};

/// A request to redrive what matches a filter, at a limited rate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedriveMatching {
    /// Which; closed ones are left out in any case.
    pub filter: DeadLetterFilter,
    /// Who asks, at most 200 bytes; kept with the record.
    pub by: String,
    /// The most that are redriven in all. Default 1 000; what was redriven is remembered until the end. What is refused does not
    /// count: it would stand before the rest for ever.
    pub most: usize,
    /// The most that are asked for in a second, so that what failed at once does not come back at once. Default 100.
    pub per_second: NonZeroU32,
    /// The most redrives of one message. Default 3.
    pub max_redrives: u32,
    /// Dead letters that died longer ago are refused; `None` forces. Default 7 days, as long as marks are kept.
    pub max_age: Option<Duration>,
}

impl RedriveMatching {
    /// Redrives what matches, at the demand of `by`.
    #[must_use]
    pub fn new(filter: DeadLetterFilter, by: impl Into<String>) -> Self {
        const HUNDRED: NonZeroU32 = NonZeroU32::new(100).unwrap();
        let week = Duration::from_hours(7 * 24);
        Self {
            filter,
            by: by.into(),
            most: 1_000,
            per_second: HUNDRED,
            max_redrives: 3,
            max_age: Some(week),
        }
    }

    /// At most this many redriven in all.
    #[must_use]
    pub const fn with_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// At most this many asked for in a second.
    #[must_use]
    pub const fn with_per_second(mut self, most: NonZeroU32) -> Self {
        self.per_second = most;
        self
    }

    /// At most this many redrives of one message.
    #[must_use]
    pub const fn with_max_redrives(mut self, most: u32) -> Self {
        self.max_redrives = most;
        self
    }

    /// Refusing what died longer ago; `None` refuses nothing for its age.
    #[must_use]
    pub const fn with_max_age(mut self, age: Option<Duration>) -> Self {
        self.max_age = age;
        self
    }
}

/// A request to discard what matches a filter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiscardMatching {
    /// Which; closed ones are left out in any case.
    pub filter: DeadLetterFilter,
    /// Who asks, at most 200 bytes; kept with the record.
    pub by: String,
    /// The most in all. Default 1 000.
    pub most: usize,
}

impl DiscardMatching {
    /// Discards what matches, at the demand of `by`.
    #[must_use]
    pub fn new(filter: DeadLetterFilter, by: impl Into<String>) -> Self {
        Self {
            filter,
            by: by.into(),
            most: 1_000,
        }
    }

    /// At most this many in all.
    #[must_use]
    pub const fn with_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }
}

/// What became of what matches a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Matched {
    /// How many were answered how, by stable names: `redriven`, `closed`, `superseded`, `too_old`, `cap_reached`, `not_found`, and
    /// `conflict` for one that was edited and whose message waits in the outbox again; `discarded` where they were to be.
    pub answers: BTreeMap<&'static str, u64>,
    /// Whether it ended with its bound, and more may match.
    pub more: bool,
}

impl Matched {
    fn count(&mut self, answer: &'static str) {
        *self.answers.entry(answer).or_default() += 1;
    }
}

impl DeadLetters {
    /// Sends what matches on its way again, the oldest first, at a limited rate.
    ///
    /// What dies again meanwhile is not redriven a second time.
    ///
    /// # Errors
    /// As [`redrive`](Self::redrive). What was redriven until then is on its way.
    ///
    /// # Cancel safety
    /// Dropping the future stops after the present request.
    pub async fn redrive_matching(&self, request: &RedriveMatching) -> Result<Matched> {
        self.redrive_matching_with(request, |_| ()).await
    }

    /// As [`redrive_matching`](Self::redrive_matching), and tells after each page what was answered until then.
    ///
    /// # Errors
    /// As [`redrive_matching`](Self::redrive_matching).
    ///
    /// # Cancel safety
    /// As [`redrive_matching`](Self::redrive_matching).
    pub async fn redrive_matching_with(
        &self,
        request: &RedriveMatching,
        mut told: impl FnMut(&BTreeMap<&'static str, u64>),
    ) -> Result<Matched> {
        let mut filter = request.filter.clone();
        filter.with_closed = false;
        let at_once = PAGE.min(usize::try_from(request.per_second.get()).unwrap_or(PAGE));
        let mut redriven = BTreeSet::new();
        let is_new = |letter: &DeadLetter, redriven: &BTreeSet<DeadId>| {
            letter
                .previous
                .is_none_or(|previous| !redriven.contains(&previous))
        };
        let (mut cursor, mut matched) = (None, Matched::default());
        loop {
            let left = request.most.saturating_sub(redriven.len());
            // With nothing left to do, one more look says whether more match.
            let page = self
                .list(&filter, cursor.as_ref(), at_once.min(left.max(1)))
                .await?;
            // One that died again is a new one, at the end of the list.
            let fresh = page.items.iter().filter(|letter| is_new(letter, &redriven));
            let fresh: Vec<&DeadLetter> = fresh.collect();
            if left == 0 && !fresh.is_empty() {
                matched.more = true;
                break;
            }
            if !fresh.is_empty() {
                let done = self.redrive_page(request, &fresh, &mut matched).await?;
                redriven.extend(done);
                told(&matched.answers);
            }
            let Some(next) = page.next else { break };
            cursor = Some(next);
            if !fresh.is_empty() {
                let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
                tokio::time::sleep(Duration::from_secs(1) * count / request.per_second.get()).await;
            }
        }
        Ok(matched)
    }

    /// Redrives in one request what cannot stand in its way, and the rest each by itself; returns those that were redriven.
    async fn redrive_page(
        &self,
        request: &RedriveMatching,
        letters: &[&DeadLetter],
        matched: &mut Matched,
    ) -> Result<Vec<DeadId>> {
        let redrive = |ids| {
            Redrive::new(ids, request.by.clone())
                .with_max_redrives(request.max_redrives)
                .with_max_age(request.max_age)
        };
        let mut done = Vec::with_capacity(letters.len());
        let mut note = |id: DeadId, answer: Redriven| {
            matched.count(name_of(answer));
            done.extend((answer == Redriven::Now).then_some(id));
        };
        // What was edited is refused while its message waits in the outbox again.
        let (refusable, others): (Vec<&DeadLetter>, Vec<&DeadLetter>) = letters
            .iter()
            .partition(|letter| letter.edits > 0 && letter.origin == Origin::Relay);
        if !others.is_empty() {
            let ids: Vec<DeadId> = others.iter().map(|letter| letter.id).collect();
            let page = self.redrive(&redrive(ids.clone())).await?;
            ids.into_iter()
                .zip(page)
                .for_each(|(id, answer)| note(id, answer));
        }
        let mut conflicts = 0;
        for letter in refusable {
            match self.redrive(&redrive(vec![letter.id])).await {
                Ok(page) => page.into_iter().for_each(|answer| note(letter.id, answer)),
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    tracing::warn!(id = %letter.id, %error, "a dead letter is not redriven");
                    conflicts += 1;
                }
                Err(error) => return Err(error),
            }
        }
        for _ in 0..conflicts {
            matched.count("conflict");
        }
        Ok(done)
    }

    /// Closes what matches without redriving it, the oldest first.
    ///
    /// # Errors
    /// As [`discard`](Self::discard). What was closed until then stays so.
    ///
    /// # Cancel safety
    /// Dropping the future stops after the present request.
    pub async fn discard_matching(&self, request: &DiscardMatching) -> Result<Matched> {
        self.discard_matching_with(request, |_| ()).await
    }

    /// As [`discard_matching`](Self::discard_matching), and tells after each page how many were closed until then.
    ///
    /// # Errors
    /// As [`discard_matching`](Self::discard_matching).
    ///
    /// # Cancel safety
    /// As [`discard_matching`](Self::discard_matching).
    pub async fn discard_matching_with(
        &self,
        request: &DiscardMatching,
        mut told: impl FnMut(u64),
    ) -> Result<Matched> {
        let mut filter = request.filter.clone();
        filter.with_closed = false;
        let (mut cursor, mut asked, mut closed) = (None, 0, 0);
        let more = loop {
            let left = request.most.saturating_sub(asked);
            let page = self.list(&filter, cursor.as_ref(), PAGE.min(left.max(1))).await?;
            if left == 0 {
                break !page.items.is_empty();
            }
            let ids: Vec<DeadId> = page.items.iter().map(|letter| letter.id).collect();
            asked += ids.len();
            closed += self.discard(&ids, &request.by).await?;
            told(closed);
            let Some(next) = page.next else { break false };
            cursor = Some(next);
        };
        Ok(Matched {
            answers: BTreeMap::from([("discarded", closed)]),
            more,
        })
    }
}

/// The stable name of an answer, for reports.
const fn name_of(answer: Redriven) -> &'static str {
    match answer {
        Redriven::Now => "redriven",
        Redriven::NotFound => "not_found",
        Redriven::Closed => "closed",
        Redriven::Superseded => "superseded",
        Redriven::TooOld => "too_old",
        Redriven::CapReached => "cap_reached",
    }
}
