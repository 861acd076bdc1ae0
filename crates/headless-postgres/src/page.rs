//! Cursors and pages.

use headless_abstractions::{Cursor, Error, Page, Result, StoreId};

/// The most rows of one page.
const MOST: usize = 1_000;

/// How the cursors of one list are written: the list's name, the store, and where the page ended.
pub(crate) struct Cursors {
    list: &'static str,
    store: StoreId,
}

impl Cursors {
    pub(crate) const fn new(list: &'static str, store: StoreId) -> Self {
        Self { list, store }
    }

    /// Where the list goes on, as it was written by [`page`](Self::page).
    ///
    /// # Errors
    /// `Invalid` for a cursor of another list or store.
    pub(crate) fn read<'c>(&self, cursor: Option<&'c Cursor>) -> Result<Option<&'c str>> {
        let Some(cursor) = cursor else { return Ok(None) };
        let place = cursor.as_str().strip_prefix(&self.prefix());
        place.map(Some).ok_or_else(foreign)
    }

    /// The first `limit` of `rows`, each with where it stands in the list. Ask the server for one more than that.
    pub(crate) fn page<T>(&self, limit: usize, rows: impl IntoIterator<Item = (String, T)>) -> Page<T> {
        let mut rows = rows.into_iter();
        let mut items = Vec::new();
        let mut last = None;
        for (place, row) in rows.by_ref().take(limit) {
            items.push(row);
            last = Some(place);
        }
        let next = rows.next().and(last);
        Page::new(items, next.map(|place| Cursor::new(self.prefix() + &place)))
    }

    fn prefix(&self) -> String {
        format!("{}.{:032x}.", self.list, self.store.bits())
    }
}

/// Refuses a limit out of range; otherwise how many rows to ask the server for.
///
/// # Errors
/// `Invalid`.
pub(crate) fn one_more_than(limit: usize) -> Result<i64> {
    if (1..=MOST).contains(&limit) {
        Ok(crate::span::count(limit) + 1)
    } else {
        Err(Error::invalid(format!(
            "the limit is {limit}, it must be 1 to {MOST}"
        )))
    }
}

pub(crate) fn foreign() -> Error {
    Error::invalid("the cursor is not one of this list")
}
