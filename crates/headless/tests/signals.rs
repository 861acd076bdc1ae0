//! Signals, sent to a process of its own: this test binary, run again for one ignored test.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]
#![expect(clippy::print_stdout, reason = "the child tells its parent how far it is")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use headless::{Consumer, Context, Event, Headless, Memory, Preset};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Job {
    seconds: u64,
}

impl Event for Job {
    const TOPIC: &'static str = "jobs";
}

/// What the child does: handles a message that takes `seconds`, until it is told to end.
async fn serve(seconds: u64) {
    let memory = Memory::new();
    let runtime = Headless::builder("child")
        .store(&memory)
        .transport(memory.clone())
        .preset(Preset::Development)
        .shutdown_timeout(Duration::from_secs(60))
        .consumer(Consumer::group("g").on(|job: Job, _: Context| async move {
            println!("begun");
            tokio::time::sleep(Duration::from_secs(job.seconds)).await;
            println!("handled");
            Ok(())
        }))
        .start()
        .await
        .unwrap();
    let publisher = runtime.publisher().clone();
    let job = Job { seconds };
    // In this order: signals are heard before the handler can say that it has begun.
    let (served, published) = tokio::join!(biased; runtime.run_until_signal(), publisher.publish(&job));
    published.unwrap();
    match served {
        Ok(()) => println!("drained"),
        Err(error) => println!("ended: {error}"),
    }
}

#[tokio::test]
#[ignore = "what the child of another test runs"]
async fn child_with_a_short_job() {
    serve(1).await;
}

#[tokio::test]
#[ignore = "what the child of another test runs"]
async fn child_with_a_long_job() {
    serve(600).await;
}

struct Served {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Served {
    /// A child whose handler has begun.
    fn begun(test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut served = Self {
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        served.read_until("begun");
        served
    }

    fn read_until(&mut self, wanted: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(wanted) {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the child ended before {wanted:?}"
            );
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

#[test]
fn should_let_the_handler_end_when_a_signal_comes() {
    for signal in ["-TERM", "-INT"] {
        let served = Served::begun("child_with_a_short_job");
        served.signal(signal);
        let rest = served.rest();
        assert!(rest.contains("handled\ndrained"), "{signal}: {rest}");
    }
}

#[test]
fn should_end_at_once_when_a_second_signal_comes() {
    let mut served = Served::begun("child_with_a_long_job");
    // A second signal of one kind could be merged with a first that was not seen yet; one of another kind cannot.
    served.signal("-TERM");
    served.signal("-INT");
    served.read_until("what was held comes back when its leases end");
    let rest = served.rest();
    assert!(!rest.contains("handled"), "{rest}");
}
