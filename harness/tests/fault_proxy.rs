//! The fault proxy, between a server that sends back what it gets and clients that wait for it.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests against real sockets and real time"
)]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use headless_harness::FaultProxy;

#[path = "fault_proxy/commits.rs"]
mod commits;
#[path = "fault_proxy/ends.rs"]
mod ends;

/// What must come, comes within this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// What must not come is looked for for this long.
const QUIET: Duration = Duration::from_millis(300);

/// A server that sends back what it gets, and counts bytes and open connections.
struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    got: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, got, open) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, counted, opened) = (stop.clone(), got.clone(), open.clone());
        let thread = thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stopped.load(SeqCst) {
                    return;
                }
                let (counted, opened) = (counted.clone(), opened.clone());
                opened.fetch_add(1, SeqCst);
                thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut bytes) {
                        counted.fetch_add(read, SeqCst);
                        if stream.write_all(&bytes[..read]).is_err() {
                            break;
                        }
                    }
                    opened.fetch_sub(1, SeqCst);
                });
            }
        });
        Self {
            address,
            stop,
            got,
            open,
            thread: Some(thread),
        }
    }

    fn url(&self) -> String {
        format!("echo://user:p%40ss@{}/path?x=1", self.address)
    }

    fn got(&self) -> usize {
        self.got.load(SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(SeqCst)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn world() -> (Echo, FaultProxy) {
    let echo = Echo::start();
    let proxy = FaultProxy::in_front_of(&echo.url()).unwrap();
    (echo, proxy)
}

fn client(proxy: &FaultProxy) -> TcpStream {
    let client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

fn round_trip(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

fn is_silent(client: &mut TcpStream) {
    client.set_read_timeout(Some(QUIET)).unwrap();
    let error = client.read(&mut [0; 64]).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error}"
    );
    client.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn is_reset(client: &mut TcpStream) {
    assert_eq!(
        client.read(&mut [0; 64]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

/// All that comes before the connection ends, in whatever way.
fn until_the_end(client: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    if let Err(error) = client.read_to_end(&mut all) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    all
}

fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let began = Instant::now();
    while !look() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn throughout(time: Duration, mut look: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert!(look(), "not so after {:?}", began.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn should_forward_everything_when_it_passes() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    let mut writer = one.try_clone().unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let expected = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    one.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == expected, "the bytes came back changed");
    eventually("both ends have closed", || {
        proxy.connections() == 0 && echo.open() == 0
    });
}

#[test]
fn should_put_its_place_into_a_url_and_leave_the_rest() {
    let (echo, proxy) = world();
    let through = proxy.url_for(&echo.url()).unwrap();
    assert_eq!(
        through,
        format!("echo://user:p%40ss@{}/path?x=1", proxy.address())
    );
    assert_eq!(
        FaultProxy::in_front_of("nothing").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn should_reset_the_client_when_the_server_is_not_there() {
    let echo = Echo::start();
    let url = echo.url();
    drop(echo);
    let proxy = FaultProxy::in_front_of(&url).unwrap();
    is_reset(&mut client(&proxy));
}

#[test]
fn should_deliver_later_and_in_order_when_there_is_latency() {
    let (_echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"warm");
    proxy.latency(Duration::from_millis(150));
    let began = Instant::now();
    for text in [b"one ", b"two ", b"six "] {
        one.write_all(text).unwrap();
    }
    let mut back = [0; 12];
    one.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"one two six ");
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
    // What is on its way waits for the latency of now, not for that of then.
    proxy.latency(Duration::from_secs(3600));
    one.write_all(b"late").unwrap();
    is_silent(&mut one);
    proxy.pass();
    one.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn should_reset_old_and_new_connections_when_told_to() {
    let (echo, proxy) = world();
    let mut old = client(&proxy);
    round_trip(&mut old, b"hello");
    proxy.reset();
    is_reset(&mut old);
    is_reset(&mut client(&proxy));
    eventually("the server's side is gone too", || echo.open() == 0);
    proxy.pass();
    round_trip(&mut client(&proxy), b"again");
}

#[test]
fn should_reset_what_was_there_when_it_passes_again_at_once() {
    let (echo, proxy) = world();
    for _ in 0..20 {
        let mut old = client(&proxy);
        round_trip(&mut old, b"hello");
        proxy.reset();
        proxy.pass();
        is_reset(&mut old);
        round_trip(&mut client(&proxy), b"a new one");
    }
    eventually("the server's side is gone too", || echo.open() == 0);
}

#[test]
fn should_hold_for_ever_when_the_time_is_without_end() {
    let (_echo, proxy) = world();
    let mut one = client(&proxy);
    proxy.latency(Duration::MAX);
    one.write_all(b"hello").unwrap();
    is_silent(&mut one);
    proxy.slow_drip(NonZero::<usize>::MIN, Duration::MAX);
    one.read_exact(&mut [0; 1]).unwrap();
    is_silent(&mut one);
    proxy.pass();
    one.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn should_swallow_everything_when_it_is_a_black_hole() {
    let (echo, proxy) = world();
    let mut old = client(&proxy);
    round_trip(&mut old, b"hello");
    let mut idle = client(&proxy);
    round_trip(&mut idle, b"hello");
    let before = echo.got();
    proxy.black_hole();
    let mut new = client(&proxy);
    // More than the kernel would hold for a receiver that does not read.
    for stream in [&mut old, &mut new] {
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&vec![7; 32 * 1024 * 1024]).unwrap();
        is_silent(stream);
    }
    assert_eq!(echo.got(), before);
    proxy.pass();
    // They have lost bytes: going on would show each end another stream than the other sent.
    is_reset(&mut old);
    is_reset(&mut new);
    round_trip(&mut idle, b"nothing was lost here");
}

#[test]
fn should_hide_that_an_end_has_closed_when_it_is_a_black_hole() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    proxy.black_hole();
    drop(one);
    throughout(QUIET, || echo.open() == 1);
    proxy.pass();
    eventually("it comes out", || echo.open() == 0);
}

#[test]
fn should_hold_the_connections_there_are_when_half_open() {
    let (echo, proxy) = world();
    let mut old = client(&proxy);
    round_trip(&mut old, b"hello");
    let mut left = client(&proxy);
    round_trip(&mut left, b"hello");
    let before = echo.got();
    proxy.half_open();
    old.write_all(b"into the void").unwrap();
    drop(left);
    is_silent(&mut old);
    assert_eq!((echo.got(), echo.open()), (before, 2));
    round_trip(&mut client(&proxy), b"new ones pass");
    proxy.pass();
    let mut back = [0; 13];
    old.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"into the void");
    round_trip(&mut old, b"and on it goes");
}

#[test]
fn should_deliver_in_drops_when_slow() {
    let (_echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"warm");
    proxy.slow_drip(NonZero::new(3).unwrap(), Duration::from_millis(40));
    let began = Instant::now();
    round_trip(&mut one, b"ten bytes!");
    // Four drops, with three pauses between them, at the least.
    assert!(
        began.elapsed() >= Duration::from_millis(120),
        "{:?}",
        began.elapsed()
    );
    proxy.slow_drip(NonZero::new(1).unwrap(), Duration::from_secs(3600));
    one.write_all(b"ab").unwrap();
    one.read_exact(&mut [0; 1]).unwrap();
    is_silent(&mut one);
    proxy.pass();
    one.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn should_cut_on_the_byte_when_requests_are_counted() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    let before = echo.got();
    proxy.cut_requests_after(5);
    one.write_all(b"BEGIN").unwrap();
    one.read_exact(&mut [0; 5]).unwrap();
    one.write_all(b"COMMIT").unwrap();
    assert_eq!(until_the_end(&mut one), b"");
    eventually("the server's side is gone too", || echo.open() == 0);
    assert_eq!(echo.got(), before + 5);
    round_trip(&mut client(&proxy), b"a cut is made once");
}

#[test]
fn should_cut_within_a_request_when_the_bytes_end_there() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    let before = echo.got();
    proxy.cut_requests_after(3);
    one.write_all(b"COMMIT").unwrap();
    until_the_end(&mut one);
    eventually("the server's side is gone too", || echo.open() == 0);
    assert_eq!(echo.got(), before + 3);
}

#[test]
fn should_lose_the_answer_alone_when_answers_are_counted() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    let before = echo.got();
    proxy.cut_answers_after(0);
    one.write_all(b"COMMIT").unwrap();
    assert_eq!(until_the_end(&mut one), b"");
    assert_eq!(echo.got(), before + 6);
}

#[test]
fn should_cut_when_both_directions_are_counted_together() {
    let (_echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    proxy.cut_after(8);
    one.write_all(b"123456").unwrap();
    assert_eq!(until_the_end(&mut one), b"12");
}

#[test]
fn should_close_everything_when_it_is_closed_or_dropped() {
    for silent in [false, true] {
        let (echo, proxy) = world();
        let mut one = client(&proxy);
        round_trip(&mut one, b"hello");
        let address = proxy.address();
        if silent {
            proxy.black_hole();
            one.write_all(b"lost").unwrap();
            drop(proxy);
        } else {
            proxy.close().unwrap();
        }
        assert_eq!(until_the_end(&mut one), b"");
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        eventually("the server's side is gone too", || echo.open() == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn should_run_in_real_time_when_the_test_does_not() {
    let (_echo, proxy) = world();
    proxy.latency(Duration::from_millis(20));
    // Blocks the only thread of the test's runtime, whose time stands still.
    let began = Instant::now();
    round_trip(&mut client(&proxy), b"hello");
    assert!(began.elapsed() >= Duration::from_millis(40));
}
