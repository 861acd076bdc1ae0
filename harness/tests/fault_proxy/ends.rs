//! A good-bye, and one direction that stalls.

use super::*;

/// What the end of a connection with a good-bye looks like.
fn is_closed(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn should_close_old_and_new_connections_with_a_good_bye_when_told_so() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    proxy.close_connections();
    is_closed(&mut one);
    is_closed(&mut client(&proxy));
    eventually("the server's side is gone too", || echo.open() == 0);
    proxy.pass();
    round_trip(&mut client(&proxy), b"again");
}

#[test]
fn should_close_the_connections_there_are_when_it_passes_again_at_once() {
    let (_echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    proxy.close_connections();
    proxy.pass();
    is_closed(&mut one);
    round_trip(&mut client(&proxy), b"again");
}

#[test]
fn should_hold_requests_back_and_let_answers_through_when_requests_stall() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    round_trip(&mut one, b"hello");
    proxy.stall_requests();
    one.write_all(b"stuck").unwrap();
    throughout(QUIET, || echo.got() == 5);
    assert_eq!(proxy.connections(), 1, "nobody learns of it");
    proxy.pass();
    let mut back = [0; 5];
    one.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"stuck", "nothing is lost by it");
}

#[test]
fn should_hold_answers_back_and_let_requests_through_when_answers_stall() {
    let (echo, proxy) = world();
    let mut one = client(&proxy);
    proxy.stall_answers();
    one.write_all(b"asked").unwrap();
    eventually("the server has it", || echo.got() == 5);
    is_silent(&mut one);
    proxy.pass();
    let mut back = [0; 5];
    one.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"asked");
}

#[test]
fn should_say_whether_it_passes_when_a_fault_happens_once() {
    let (_echo, proxy) = world();
    assert!(proxy.is_passing());
    proxy.cut_after(2);
    assert!(!proxy.is_passing());
    let mut one = client(&proxy);
    one.write_all(b"1234").unwrap();
    eventually("the cut has happened", || proxy.is_passing());
}
