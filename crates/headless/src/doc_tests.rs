//! What only the documentation tests see.

/// The quickstart compiles and runs.
#[doc = include_str!("../../../README.md")]
struct Readme;

/// A unit of work in a transaction that the user began has no `commit`; the first of these two programs shows that the
/// second fails for that alone.
///
/// ```
/// # use headless::{Runtime, UnitOfWork, Wake};
/// # use headless_abstractions::{Appended, Arrival, Hold, Marked, Message, Result, StoreTx};
/// #[derive(Debug)]
/// struct Borrowed;
///
/// #[async_trait::async_trait]
/// impl StoreTx for Borrowed {
///     async fn append(&mut self, _: &[Message]) -> Result<Vec<Appended>> { Ok(Vec::new()) }
///     async fn mark_processed(&mut self, _: &[(Arrival, Hold)]) -> Result<Vec<Marked>> { Ok(Vec::new()) }
/// }
///
/// async fn enlist(runtime: &Runtime) -> Result<Wake> {
///     let work: UnitOfWork<Borrowed> = runtime.enlist(Borrowed);
///     work.detach()
/// }
/// ```
///
/// ```compile_fail,E0599
/// # use headless::{Runtime, UnitOfWork, Wake};
/// # use headless_abstractions::{Appended, Arrival, Hold, Marked, Message, Result, StoreTx};
/// #[derive(Debug)]
/// struct Borrowed;
///
/// #[async_trait::async_trait]
/// impl StoreTx for Borrowed {
///     async fn append(&mut self, _: &[Message]) -> Result<Vec<Appended>> { Ok(Vec::new()) }
///     async fn mark_processed(&mut self, _: &[(Arrival, Hold)]) -> Result<Vec<Marked>> { Ok(Vec::new()) }
/// }
///
/// async fn enlist(runtime: &Runtime) -> Result<()> {
///     let work: UnitOfWork<Borrowed> = runtime.enlist(Borrowed);
///     work.commit().await
/// }
/// ```
struct EnlistedHasNoCommit;
