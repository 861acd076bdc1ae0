//! Cursors and pages.

use headless_abstractions::{Cursor, Error, Page, Result, StoreId};

/// The most rows of one page.
const MOST: usize = 1_000;

/// How the cursors of one list are written: the list's name, the store and where the page ended.
pub(super) struct Cursors {
    list: &'static str,
    store: StoreId,
}

impl Cursors {
    pub(super) const fn new(list: &'static str, store: StoreId) -> Self {
        Self { list, store }
    }

    /// Where the list goes on, as it was written by [`page`](Self::page).
    pub(super) fn read<'c>(&self, cursor: Option<&'c Cursor>) -> Result<Option<&'c str>> {
        let Some(cursor) = cursor else { return Ok(None) };
        let place = cursor.as_str().strip_prefix(&self.prefix());
        place.map(Some).ok_or_else(|| self.foreign())
    }

    pub(super) fn foreign(&self) -> Error {
        Error::invalid("the cursor is not one of this list")
            .with_operation("list")
            .with_provider("memory")
    }

    /// The first `limit` of `rows`, each with where it stands in the list.
    pub(super) fn page<T>(
        &self,
        limit: usize,
        mut rows: impl Iterator<Item = (String, T)>,
    ) -> Result<Page<T>> {
        check_limit(limit)?;
        let mut items = Vec::new();
        let mut last = None;
        for (place, row) in rows.by_ref().take(limit) {
            items.push(row);
            last = Some(place);
        }
        let next = if rows.next().is_some() { last } else { None };
        Ok(Page::new(
            items,
            next.map(|place| Cursor::new(self.prefix() + &place)),
        ))
    }

    fn prefix(&self) -> String {
        format!("{}.{:032x}.", self.list, self.store.bits())
    }
}

/// Refuses a limit out of range.
pub(super) fn check_limit(limit: usize) -> Result<()> {
    if (1..=MOST).contains(&limit) {
        return Ok(());
    }
    Err(
        Error::invalid(format!("the limit is {limit}, it must be 1 to {MOST}"))
            .with_operation("list")
            .with_provider("memory"),
    )
}
