//! `headless demo`: publish, handle with two members, take one away, and count it all. By the public facade alone.

mod books;
mod member;

use anyhow::{Result, bail};
use futures::{FutureExt, TryFutureExt, future::try_join_all};
use headless::Providers;
use headless::testing::{Figures, Handled, Report, Tally, Trial};
use serde_json::json;
use tokio::{io, process::Command, signal, sync::oneshot};

use self::member::PATIENCE;
use crate::cli::{DemoArgs, DemoMemberArgs, LinesArgs, Role};
use crate::input::{self, Line};
use crate::{bad_input::BadInput, progress, urls::Place, urls::is_bad_input};

/// How many keys are published at once, each in the order of its lines.
const LANES: usize = 8;

/// Runs the demo until everything is settled, and leaves nothing of it.
pub(crate) async fn run(args: &DemoArgs) -> Result<Report> {
    let lines = lines(&args.lines)?;
    let bar = progress::line(Some(lines.len() as u64), "handled");
    let counted = bar.clone();
    let trial = Trial::new([&args.store, &args.transport])
        .crash_after(args.crash_after.unwrap_or(0))
        .watched_by(move |went| {
            counted.inc(1);
            if went {
                counted.set_message("(one member was taken away)");
            }
        });
    let report = tokio::select! {
        biased;
        told = play(&trial, &lines) => told.map(|(tally, told)| Report::of(lines.len(), tally, &told, bar.elapsed())),
        signal = signal::ctrl_c() => signal.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    bar.finish_and_clear();
    let removed = trial.remove().await;
    let report = report.and_then(|report| Ok(removed.map(|()| report)?))?;
    if args.crash_after.is_some() && !trial.took_one_away() {
        bail!("--crash-after: fewer messages were handled, and no member was taken away");
    }
    Ok(report)
}

async fn play(trial: &Trial, lines: &[Line]) -> Result<(Tally, Vec<Figures>)> {
    let place = Place::connect(trial.providers(), trial.urls()).await?;
    books::open(&place.store).await?;
    let (publishing, published) = oneshot::channel::<()>();
    let published = published.map(drop).shared();
    let (at, until) = (trial.clone(), published.clone());
    let serve = move |handled| {
        let (at, until) = (at.clone(), until.clone());
        async move {
            let place = Place::connect(at.providers(), at.urls()).await?;
            member::serve(Role::Member, place, handled, until).await
        }
    };
    let command = || {
        let [store, transport] = trial.urls();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["demo-member", "--role=member"]);
        command.args(["--store", store, "--transport", transport]);
        Ok(command)
    };
    let serving = trial.run(2, published, command, serve);
    let producing = produce(&place, lines).map_ok(|()| drop(publishing));
    let (told, ()) = tokio::try_join!(serving, producing)?;
    Ok((books::tally(&place.store).await?, told))
}

/// `headless demo-member`: one process of a demo. A producer has nothing to tell.
pub(crate) async fn member(args: &DemoMemberArgs) -> Result<Option<Figures>> {
    let urls = [args.store.clone(), args.transport.clone()];
    let place = Place::connect(&Providers::builtin(), &urls).await?;
    if args.role == Role::Producer {
        return produce(&place, &lines(&args.lines)?).await.map(|()| None);
    }
    let until = async { drop(io::copy(&mut io::stdin(), &mut io::sink()).await) };
    member::serve(args.role, place, Handled::to_parent(), until)
        .await
        .map(Some)
}

/// Publishes every line, several keys at once; reports all lines that are wrong.
async fn produce(place: &Place, lines: &[Line]) -> Result<()> {
    let runtime = member::builder(place).relays(false).start().await?;
    let lane_of = |line: &Line| {
        line.key
            .iter()
            .flat_map(|key| key.bytes())
            .map(usize::from)
            .sum::<usize>()
    };
    let lane = async |lane| {
        let mut mistakes = Vec::new();
        for line in lines.iter().filter(|line| lane_of(line) % LANES == lane) {
            match books::publish(&place.store, &runtime, line).await {
                Err(error) if error.downcast_ref().is_some_and(is_bad_input) => {
                    mistakes.push((line.number, format!("line {}: {error}", line.number)));
                }
                published => published?,
            }
        }
        anyhow::Ok(mistakes)
    };
    let mut mistakes = try_join_all((0..LANES).map(lane)).await?.concat();
    mistakes.sort();
    BadInput::unless_empty(mistakes.into_iter().map(|(_, mistake)| mistake).collect())?;
    Ok(runtime.shutdown(PATIENCE).await?)
}

/// The lines that the arguments ask for, each with an id and a key: those of a file, or orders that are made up.
fn lines(args: &LinesArgs) -> Result<Vec<Line>> {
    let order = |number| Line {
        number,
        id: Some(format!("order-{number}")),
        key: Some(format!("customer-{}", number % args.keys)),
        event: Some("order.placed".to_owned()),
        payload: json!({ "order": number, "total": number % 97 }),
        ..Line::default()
    };
    match &args.input {
        Some(path) => input::read_keyed(path),
        None => Ok((1..=args.messages).map(order).collect()),
    }
}
