//! Dead letters as an operator handles them: list, redrive, discard.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use headless_abstractions::{
    Cursor, DeadId, DeadLetter, DeadLetterFilter, DeadLetterStats, InboxParts, Page, Redrive, Redriven,
    Result,
};
use headless_core::Environment;

/// How many dead letters are redriven with one request.
const PAGE: usize = 100;

/// Dead letters as an operator handles them. Nothing else moves them.
///
/// ```
/// # use headless_abstractions::{DeadLetterFilter, Result};
/// # use headless_messaging::DeadLetters;
/// # async fn example(dead: DeadLetters) -> Result<()> {
/// let open = dead.list(&DeadLetterFilter::open(), None, 20).await?;
/// let ids = open.items.iter().map(|letter| letter.id).collect();
/// let answers = dead.redrive(&headless_abstractions::Redrive::new(ids, "ann")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    store: InboxParts,
    environment: Environment,
}

/// A request to redrive what matches a filter, at a limited rate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedriveMatching {
    /// Which; closed ones are left out in any case.
    pub filter: DeadLetterFilter,
    /// Who asks, at most 200 bytes; kept with the record.
    pub by: String,
    /// The most in all. Default 1 000.
    pub most: usize,
    /// The most in a second, so that what failed at once does not come back at once. Default 100.
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

    /// At most this many in all.
    #[must_use]
    pub const fn with_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// At most this many in a second.
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

impl DeadLetters {
    pub(crate) const fn new(store: InboxParts, environment: Environment) -> Self {
        Self { store, environment }
    }

    /// Those that match, the oldest first, at most `limit` (1 to 1 000).
    ///
    /// # Errors
    /// `Invalid` for a limit out of range or a foreign cursor; else what the store answers.
    pub async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter>> {
        self.store.dead_letter_queries.list(filter, after, limit).await
    }

    /// This one.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>> {
        self.store.dead_letter_queries.get(id).await
    }

    /// The open ones, grouped by origin, topic and cause.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn stats(&self) -> Result<Vec<DeadLetterStats>> {
        self.store.dead_letter_queries.stats().await
    }

    /// Sends these on their way again, to the same group alone, or into the outbox if they died in the relay; answers
    /// for each in the order of the request.
    ///
    /// # Errors
    /// `Invalid` for a payload with other than one id, or a `by` that is empty or over 200 bytes; else what the store
    /// answers.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each of them redriven or not; asking again is harmless.
    pub async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        let answers = self.store.dead_letters.redrive(request).await?;
        tracing::info!(
            by = request.by,
            asked = request.ids.len(),
            "dead letters are redriven"
        );
        self.environment.wakeups.parked().wake();
        self.environment.wakeups.outbox().wake();
        Ok(answers)
    }

    /// Sends what matches on its way again, at a limited rate; tells how many were answered how.
    ///
    /// # Errors
    /// As [`redrive`](Self::redrive). What was redriven until then is on its way.
    ///
    /// # Cancel safety
    /// Dropping the future stops after the present request.
    pub async fn redrive_matching(&self, request: &RedriveMatching) -> Result<BTreeMap<&'static str, u64>> {
        let mut filter = request.filter.clone();
        filter.with_closed = false;
        let at_once = PAGE.min(usize::try_from(request.per_second.get()).unwrap_or(PAGE));
        let (mut cursor, mut asked, mut answers) = (None, 0, BTreeMap::new());
        while asked < request.most {
            let page = self
                .list(&filter, cursor.as_ref(), at_once.min(request.most - asked))
                .await?;
            if page.items.is_empty() {
                break;
            }
            let ids: Vec<DeadId> = page.items.iter().map(|letter| letter.id).collect();
            asked += ids.len();
            let redrive = Redrive::new(ids, request.by.clone())
                .with_max_redrives(request.max_redrives)
                .with_max_age(request.max_age);
            for answer in self.redrive(&redrive).await? {
                *answers.entry(name_of(answer)).or_default() += 1;
            }
            let Some(next) = page.next else { break };
            cursor = Some(next);
            if asked < request.most {
                let count = u32::try_from(page.items.len()).unwrap_or(u32::MAX);
                tokio::time::sleep(Duration::from_secs(1) * count / request.per_second.get()).await;
            }
        }
        Ok(answers)
    }

    /// Closes these without redriving them, and returns how many were open. They stay as a record.
    ///
    /// # Errors
    /// `Invalid` for a `by` that is empty or over 200 bytes; else what the store answers.
    pub async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        let closed = self.store.dead_letters.discard(ids, by).await?;
        tracing::info!(by, asked = ids.len(), closed, "dead letters are discarded");
        Ok(closed)
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
