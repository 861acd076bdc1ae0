//! The harness proves itself: every case catches the mutations that it names, and every mutation is caught.

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Completion, Trial};

use crate::{
    case::{Case, Verdict},
    consumer, control, inbox, membership,
    memory::MemoryFixture,
    mutation::{Mutated, Mutation},
    outbox,
    run::{Outcome, run_case},
    transport,
};

/// Runs every case over the memory provider: unmutated, where it must pass, and under each mutation that it names,
/// where it must fail. A mutation that no case names, or a case that names none, is a failure too.
#[must_use]
pub fn mutation_self_test() -> ExitCode {
    let mut trials = suite("transport", transport::cases(), Mutation::TRANSPORT);
    trials.extend(suite("outbox", outbox::cases(), Mutation::OUTBOX));
    trials.extend(suite("inbox", inbox::cases(), Mutation::INBOX));
    trials.extend(suite("membership", membership::cases(), Mutation::MEMBERSHIP));
    trials.extend(suite("control", control::cases(), Mutation::CONTROL));
    // Its mutations are those of the drivers: the drivers' own suites catch each of them.
    trials.extend(suite("consumer", consumer::cases(), &[]));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn suite(
    suite: &'static str,
    cases: Vec<Case<Mutated<MemoryFixture>>>,
    mutations: &'static [Mutation],
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for &mutation in mutations {
        let named = cases.iter().any(|case| case.catches.contains(&mutation));
        trials.push(Trial::test(format!("{suite}::caught::{mutation:?}"), move || {
            if named {
                Ok(())
            } else {
                Err("no case names it: it survives".into())
            }
        }));
    }
    for case in cases {
        let case = Arc::new(case);
        trials.push(unmutated(suite, case.clone()));
        for &mutation in case.catches {
            trials.push(mutated(suite, case.clone(), mutation));
        }
    }
    trials
}

fn unmutated(suite: &str, case: Arc<Case<Mutated<MemoryFixture>>>) -> Trial {
    Trial::ignorable_test(format!("{suite}::{}", case.name), move || {
        if case.catches.is_empty() {
            return Err("the case names no mutation that it catches".into());
        }
        match run_case(&case, |inner: MemoryFixture| Mutated::new(inner, None)).outcome {
            Outcome::Judged(Verdict::Proved) => Ok(Completion::Completed),
            Outcome::Judged(Verdict::Unproved(why)) => Ok(Completion::ignored_with(why)),
            other => Err(format!("unmutated: {other:?}").into()),
        }
    })
}

fn mutated(suite: &str, case: Arc<Case<Mutated<MemoryFixture>>>, mutation: Mutation) -> Trial {
    Trial::test(
        format!("{suite}::{}::{mutation:?}", case.name),
        move || match run_case(&case, |inner: MemoryFixture| Mutated::new(inner, Some(mutation))).outcome {
            Outcome::Failed(_) => Ok(()),
            survived => Err(format!("the mutation survives: {survived:?}").into()),
        },
    )
}
