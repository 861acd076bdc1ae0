//! `headless demo`: publish, handle with two members, take one away, and count it all. By the public facade alone.

mod books;
mod crew;
mod member;
mod report;

use anyhow::{Result, bail};
use futures::{FutureExt, TryFutureExt, TryStreamExt, future::try_join_all, stream::FuturesUnordered};
use headless::testing::Ended;
use headless::{Providers, Sandbox};
use serde_json::json;
use tokio::{io, signal, sync::oneshot};

use self::crew::{Crew, Place};
use self::member::PATIENCE;
pub(crate) use self::report::{Figures, Report};
use crate::cli::{DemoArgs, DemoMemberArgs, LinesArgs, Role};
use crate::input::{self, Line};
use crate::{bad_input::BadInput, progress, urls::is_bad_input};

/// How many keys are published at once, each in the order of its lines.
const LANES: usize = 8;

/// Runs the demo until everything is settled, and leaves nothing of it.
pub(crate) async fn run(args: &DemoArgs) -> Result<Report> {
    let (lines, sandbox) = (lines(&args.lines)?, Sandbox::new());
    let urls = [&args.store, &args.transport].map(|url| crew::url(&sandbox, url));
    let report = tokio::select! {
        biased;
        report = play(&urls, lines, args.crash_after.unwrap_or(0)) => report,
        signal = signal::ctrl_c() => signal.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    for url in &urls {
        match sandbox.remove(url).await {
            Err(error) if report.is_ok() => return Err(error.into()),
            _ => {}
        }
    }
    report
}

async fn play(urls: &[String; 2], lines: Vec<Line>, crash_after: u64) -> Result<Report> {
    let bar = progress::line(Some(lines.len() as u64), "handled");
    let crew = Crew::new(urls, bar.clone(), crash_after);
    let place = Place::connect(&crew.providers, urls).await?;
    books::open(&place.store).await?;
    let (publishing, published) = oneshot::channel::<()>();
    let published = published.map(drop).shared();
    let start = || crew.start(&place, published.clone());
    let (mut members, mut told) = (FuturesUnordered::from_iter([start(), start()]), Vec::new());
    let serving = async {
        while let Some(ended) = members.try_next().await? {
            match ended {
                Ended::Done(figures) => told.push(figures),
                Ended::TakenAway => members.push(start()),
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(serving, produce(&place, &lines).map_ok(|()| drop(publishing)))?;
    bar.finish_and_clear();
    let tally = books::tally(&place.store).await?;
    Ok(Report::of(lines.len(), tally, &told, bar.elapsed()))
}

/// `headless demo-member`: one process of a demo. A producer has nothing to tell.
pub(crate) async fn member(args: &DemoMemberArgs) -> Result<Option<Figures>> {
    let urls = [args.store.clone(), args.transport.clone()];
    let place = Place::connect(&Providers::builtin(), &urls).await?;
    if args.role == Role::Producer {
        return produce(&place, &lines(&args.lines)?).await.map(|()| None);
    }
    let until = async { drop(io::copy(&mut io::stdin(), &mut io::sink()).await) };
    member::serve(args.role, place, member::tell_parent, until)
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
