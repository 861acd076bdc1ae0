//! What is known of PostgreSQL alone: its COMMIT, before a server that says what a test has it say.

use super::*;

const HELLO: &[u8] = &[0, 0, 0, 8, 0, 3, 0, 0];
const SELECT: &[u8] = b"Q\0\0\0\x0dselect 1\0";
const COMMIT: &[u8] = b"Q\0\0\0\x0bcommit\0";
const READY: &[u8] = b"Z\0\0\0\x05T";
const SELECTED: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05T";
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I";
const NOTIFIED: &[u8] = b"A\0\0\0\x0d\0\0\0\x01one\0\0";

/// Serves one connection: for each turn it waits for so many bytes, and says this. Then it waits for the other's end.
fn server(turns: Vec<(usize, Vec<u8>)>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("postgres://{}/test", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        for (wanted, says) in turns {
            stream.read_exact(&mut vec![0; wanted]).unwrap();
            stream.write_all(&says).unwrap();
        }
        match stream.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
            Ok(_) => panic!("the client says more"),
        }
    });
    (url, thread)
}

#[test]
fn should_refuse_to_break_commits_when_the_server_is_not_postgresql() {
    let (_echo, proxy) = world();
    for refused in [proxy.drop_commit(), proxy.lose_commit_answer()] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert!(proxy.is_passing());
}

#[test]
fn should_lose_the_answer_when_the_server_tells_something_after_it() {
    let told = [COMMITTED, NOTIFIED].concat();
    let (url, served) = server(vec![(HELLO.len(), READY.to_vec()), (COMMIT.len(), told)]);
    let proxy = FaultProxy::in_front_of(&url).unwrap();
    let mut one = client(&proxy);
    one.write_all(HELLO).unwrap();
    one.read_exact(&mut [0; 6]).unwrap();
    proxy.lose_commit_answer().unwrap();
    one.write_all(COMMIT).unwrap();
    assert!(until_the_end(&mut one).is_empty());
    assert!(proxy.is_passing());
    served.join().unwrap();
}

#[test]
fn should_lose_no_other_answer_when_the_commit_is_pipelined() {
    // Whether the answers come apart or together.
    let apart = [(0, SELECTED.to_vec()), (COMMIT.len(), COMMITTED.to_vec())];
    let together = [(COMMIT.len(), [SELECTED, COMMITTED].concat())];
    for turns in [apart.to_vec(), together.to_vec()] {
        let first = [(HELLO.len(), READY.to_vec()), (SELECT.len(), Vec::new())];
        let (url, served) = server(first.into_iter().chain(turns).collect());
        let proxy = FaultProxy::in_front_of(&url).unwrap();
        let mut one = client(&proxy);
        one.write_all(HELLO).unwrap();
        one.read_exact(&mut [0; 6]).unwrap();
        proxy.lose_commit_answer().unwrap();
        one.write_all(&[SELECT, COMMIT].concat()).unwrap();
        assert_eq!(until_the_end(&mut one), SELECTED);
        // It has given both answers: the connection was not closed before the second one.
        served.join().unwrap();
    }
}

#[test]
fn should_close_at_the_end_of_the_answer_when_it_is_long() {
    let notices = NOTIFIED.repeat(100_000);
    let told = [notices, COMMITTED.to_vec()].concat();
    let (url, served) = server(vec![(HELLO.len(), READY.to_vec()), (COMMIT.len(), told)]);
    let proxy = FaultProxy::in_front_of(&url).unwrap();
    let mut one = client(&proxy);
    one.write_all(HELLO).unwrap();
    one.read_exact(&mut [0; 6]).unwrap();
    proxy.lose_commit_answer().unwrap();
    one.write_all(COMMIT).unwrap();
    assert!(until_the_end(&mut one).is_empty());
    served.join().unwrap();
}
