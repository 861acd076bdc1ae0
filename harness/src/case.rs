//! One case: what it proves, when it applies, and which mutations it must catch.

use std::fmt;

use futures::future::LocalBoxFuture;
use headless_abstractions::{OrderingGuarantee, TransportCapabilities};

use crate::{cx::Cx, fixture::TransportFixture, mutation::Mutation};

/// What a case answers; `?` works on every error.
pub(crate) type CaseResult<T = ()> = Result<T, CaseError>;

/// Why a case did not come to its end.
#[derive(Debug)]
pub(crate) enum CaseError {
    /// The provider broke a promise, or the case could not go on.
    Failed(String),
    /// It could not be looked at here, for this reason; neither proved nor broken.
    Unproved(String),
}

impl CaseError {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    pub(crate) fn unproved(why: impl Into<String>) -> Self {
        Self::Unproved(why.into())
    }
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(what) => f.write_str(what),
            Self::Unproved(why) => write!(f, "unproved: {why}"),
        }
    }
}

impl<E: std::error::Error> From<E> for CaseError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            text.push_str(": ");
            text.push_str(&source.to_string());
            cause = source.source();
        }
        Self::Failed(text)
    }
}

/// Ends the case as failed.
macro_rules! fail {
    ($($what:tt)+) => {
        return Err($crate::case::CaseError::failed(format!($($what)+)))
    };
}

/// Ends the case as failed unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            $crate::case::fail!($($what)+);
        }
    };
}

/// Ends the case as failed unless both sides are equal; what comes last says what they are.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($what:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if *left != *right {
                    $crate::case::fail!("{}: got {left:?}, expected {right:?}", format_args!($($what)+));
                }
            }
        }
    };
}

/// The case that this function is, with the line that says what it proves.
macro_rules! case {
    ($function:ident, $proves:literal) => {
        $crate::case::Case::new(stringify!($function), $proves, |cx| Box::pin($function(cx)))
    };
}

/// A function as it runs in place of a case whose flag is off.
macro_rules! instead {
    ($function:ident) => {
        |cx| Box::pin($function(cx))
    };
}

pub(crate) use {case, ensure, ensure_eq, fail, instead};

/// The body of a case.
pub(crate) type CaseFn<F> = for<'a> fn(&'a Cx<F>) -> LocalBoxFuture<'a, CaseResult>;

/// A capability that a case needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) on: fn(&TransportCapabilities) -> bool,
}

macro_rules! flags {
    ($($flag:ident: $name:literal, $on:expr;)*) => {
        #[expect(non_upper_case_globals, reason = "a flag is written as the capability that it is")]
        impl Flag {
            $(pub(crate) const $flag: Self = Self { name: $name, on: $on };)*

            /// Every flag, in the order of [`TransportCapabilities`].
            pub(crate) const ALL: &[Self] = &[$(Self::$flag),*];
        }
    };
}

flags! {
    durable: "durable", |c| c.durable;
    ordering: "ordering", |c| c.ordering == OrderingGuarantee::PerKey;
    accepts_by_prefix: "accepts_by_prefix", |c| c.accepts_by_prefix;
    requeue: "requeue", |c| c.requeue;
    requeue_delay: "requeue_delay", |c| c.requeue_delay;
    delayed_send: "delayed_send", |c| c.delayed_send;
    delivery_count: "delivery_count", |c| c.delivery_count;
    fenced_settlement: "fenced_settlement", |c| c.fenced_settlement;
    extend: "extend", |c| c.extend;
    expiry: "expiry", |c| c.expiry;
    replay_from_start: "replay_from_start", |c| c.replay_from_start;
    priority: "priority", |c| c.priority;
    per_instance_groups: "per_instance_groups", |c| c.per_instance_groups;
    stable_foreign_ids: "stable_foreign_ids", |c| c.stable_foreign_ids;
    repartition: "repartition", |c| c.repartition;
    max_payload: "max_payload", |c| c.max_payload.is_some();
}

/// What stands in for a case whose flag is off.
enum Off<F> {
    /// The request is refused, which this proves.
    Refused(CaseFn<F>),
    /// There is nothing to prove, but for what the flag's doc promises in its absence.
    Absent(Option<CaseFn<F>>),
}

struct Gate<F> {
    flag: Flag,
    ask: for<'a> fn(&'a Cx<F>) -> LocalBoxFuture<'a, CaseResult<TransportCapabilities>>,
    off: Off<F>,
}

/// What came of a case that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The promise was kept.
    Proved,
    /// The flag is off, and the request was refused.
    Refused,
    /// Nothing was shown, for this reason.
    Unproved(String),
}

/// One case of a suite.
pub(crate) struct Case<F> {
    pub(crate) name: &'static str,
    pub(crate) proves: &'static str,
    pub(crate) catches: &'static [Mutation],
    /// It restarts the server.
    pub(crate) restarts: bool,
    run: CaseFn<F>,
    gates: Vec<Gate<F>>,
}

impl<F> Case<F> {
    pub(crate) fn new(name: &'static str, proves: &'static str, run: CaseFn<F>) -> Self {
        Self {
            name,
            proves,
            catches: &[],
            restarts: false,
            run,
            gates: Vec::new(),
        }
    }

    /// The case fails under each of these.
    pub(crate) fn catching(mut self, mutations: &'static [Mutation]) -> Self {
        self.catches = mutations;
        self
    }

    /// The case restarts the server: it is not one that others use.
    pub(crate) fn restarting(mut self) -> Self {
        self.restarts = true;
        self
    }

    /// Runs it, or what stands in for it.
    pub(crate) async fn judge(&self, cx: &Cx<F>) -> CaseResult<Verdict> {
        match self.decide(cx).await {
            Err(CaseError::Unproved(why)) => Ok(Verdict::Unproved(why)),
            other => other,
        }
    }

    async fn decide(&self, cx: &Cx<F>) -> CaseResult<Verdict> {
        for gate in &self.gates {
            let capabilities = (gate.ask)(cx).await?;
            if (gate.flag.on)(&capabilities) {
                continue;
            }
            return match gate.off {
                Off::Refused(refused) => refused(cx).await.map(|()| Verdict::Refused),
                Off::Absent(instead) => {
                    if let Some(instead) = instead {
                        instead(cx).await?;
                    }
                    Err(CaseError::unproved(format!(
                        "absent: `{}` is off",
                        gate.flag.name
                    )))
                }
            };
        }
        (self.run)(cx).await.map(|()| Verdict::Proved)
    }
}

impl<F: TransportFixture> Case<F> {
    /// Where the flag is off, the request is refused, which `refused` proves.
    pub(crate) fn requested(self, flag: Flag, refused: CaseFn<F>) -> Self {
        self.gated(flag, Off::Refused(refused))
    }

    /// Where the flag is off, the case is reported as absent.
    pub(crate) fn described(self, flag: Flag) -> Self {
        self.gated(flag, Off::Absent(None))
    }

    /// Where the flag is off, `instead` must hold, and the case is reported as absent.
    pub(crate) fn described_or(self, flag: Flag, instead: CaseFn<F>) -> Self {
        self.gated(flag, Off::Absent(Some(instead)))
    }

    fn gated(mut self, flag: Flag, off: Off<F>) -> Self {
        self.gates.push(Gate {
            flag,
            ask: |cx| Box::pin(async move { Ok(cx.node().await?.driver.info().capabilities) }),
            off,
        });
        self
    }
}
