//! Dead letters as an operator handles them: look, count, edit, redrive, discard.

use headless_abstractions::{
    Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterStats, DeadLetterTally, Edit,
    Edited, InboxParts, Page, Redrive, Redriven, Result, StoreParts,
};
use headless_core::{CrashPoint, Wakeups};

mod matching;

pub use matching::{DiscardMatching, Matched, RedriveMatching};

/// How many dead letters are changed with one request.
const PAGE: usize = 100;

/// Dead letters as an operator handles them. Nothing else moves them.
///
/// ```
/// # use headless_abstractions::{DeadLetterFilter, Edit, Redrive, Result};
/// # use headless_messaging::{DeadLetters, RedriveMatching};
/// # async fn example(dead: DeadLetters) -> Result<()> {
/// // What has gone wrong, the most frequent first; one of the first kind; all that are like it.
/// for tally in dead.tally(&DeadLetterFilter::open(), 10).await? {
///     println!("{} × {} {}: {}", tally.count, tally.topic, tally.cause, tally.error);
/// }
/// let Some(letter) = dead.list(&DeadLetterFilter::open(), None, 1).await?.items.pop() else { return Ok(()) };
/// let like_it = DeadLetterFilter::like(&letter);
///
/// // Mend one and send it on its way; then the others, at a rate that what failed before can bear.
/// dead.edit(&Edit::new(letter.id, "{}".into(), "ann").with_seen(letter.edits)).await?;
/// dead.redrive(&Redrive::new(vec![letter.id], "ann")).await?;
/// dead.redrive_matching(&RedriveMatching::new(like_it, "ann")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    store: InboxParts,
    wakeups: Wakeups,
}

impl DeadLetters {
    pub(crate) const fn new(store: InboxParts, wakeups: Wakeups) -> Self {
        Self { store, wakeups }
    }

    /// Those of this store, for a process that handles nothing itself; `None` where the store keeps none.
    #[must_use]
    pub fn of(store: &StoreParts) -> Option<Self> {
        Some(Self::new(store.inbox.clone()?, Wakeups::default()))
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

    /// What was done to this one, the first change first, at most `limit` (1 to 1 000).
    ///
    /// # Errors
    /// `Invalid` for a limit out of range or a foreign cursor; else what the store answers.
    pub async fn history(
        &self,
        id: DeadId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterChange>> {
        self.store.dead_letter_queries.history(id, after, limit).await
    }

    /// The open ones, grouped by origin, topic and cause.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn stats(&self) -> Result<Vec<DeadLetterStats>> {
        self.store.dead_letter_queries.stats().await
    }

    /// Those that match, counted by origin, topic, cause and the shape of their error, the most frequent first, at most
    /// `limit` kinds (1 to 1 000).
    ///
    /// # Errors
    /// `Invalid` for a limit out of range; else what the store answers.
    pub async fn tally(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetterTally>> {
        self.store.dead_letter_queries.tally(filter, limit).await
    }

    /// Gives an open one another payload; its history keeps the one before. It stays where it is until it is redriven.
    ///
    /// # Errors
    /// `Invalid` for a `by` that is empty or over 200 bytes; `TooLarge` for a payload that the store cannot hold; else
    /// what the store answers.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it edited or not; asking again is harmless where the request says what was seen.
    pub async fn edit(&self, request: &Edit) -> Result<Edited> {
        CrashPoint::LetterEditing.reach()?;
        let answer = self.store.dead_letters.edit(request).await?;
        CrashPoint::LetterEdited.reach()?;
        tracing::info!(by = request.by, id = %request.id, ?answer, "a dead letter is edited");
        Ok(answer)
    }

    /// Sends these on their way again, to the same group alone, or into the outbox if they died in the relay; answers
    /// for each in the order of the request.
    ///
    /// # Errors
    /// `Invalid` for a payload with other than one id, or a `by` that is empty or over 200 bytes; else what the store
    /// answers. Of more than a hundred some may be redriven then.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each of them redriven or not; asking again is harmless.
    pub async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        // The store refuses a payload for several, and judges a request for none: each of them goes to it as it is.
        let at_once = if request.payload.is_some() {
            request.ids.len()
        } else {
            PAGE
        };
        let mut answers = Vec::with_capacity(request.ids.len());
        let mut rest = &request.ids[..];
        loop {
            let (ids, after) = rest.split_at(at_once.min(rest.len()));
            let mut asked = request.clone();
            asked.ids = ids.to_vec();
            CrashPoint::LetterRedriving.reach()?;
            answers.extend(self.store.dead_letters.redrive(&asked).await?);
            CrashPoint::LetterRedriven.reach()?;
            if after.is_empty() {
                break;
            }
            rest = after;
        }
        tracing::info!(
            by = request.by,
            asked = request.ids.len(),
            "dead letters are redriven"
        );
        self.wakeups.parked().wake();
        self.wakeups.outbox().wake();
        Ok(answers)
    }

    /// Closes these without redriving them, and returns how many were open. They stay as a record.
    ///
    /// # Errors
    /// `Invalid` for a `by` that is empty or over 200 bytes; else what the store answers. Of more than a hundred some may
    /// be closed then.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each of them closed or not; asking again is harmless.
    pub async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        // The name is for the store to judge, also where nothing is asked for.
        let (first, others) = ids.split_at(PAGE.min(ids.len()));
        let mut closed = self.discard_page(first, by).await?;
        for page in others.chunks(PAGE) {
            closed += self.discard_page(page, by).await?;
        }
        tracing::info!(by, asked = ids.len(), closed, "dead letters are discarded");
        Ok(closed)
    }

    async fn discard_page(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        CrashPoint::LetterDiscarding.reach()?;
        let closed = self.store.dead_letters.discard(ids, by).await?;
        CrashPoint::LetterDiscarded.reach()?;
        Ok(closed)
    }
}
