//! What was published and sent, and the judge of it.

use std::collections::BTreeMap;

use super::OrderReport;

/// What was published and sent. Its moments are numbers that count up: each is before whatever asks for the next one.
#[derive(Debug, Default)]
pub(super) struct History {
    moment: u64,
    messages: Vec<Message>,
    /// How many were committed and have not ended.
    waiting: usize,
    deaths: u64,
    kills: u64,
}

#[derive(Debug)]
struct Message {
    key: Option<u64>,
    /// A moment before its append began.
    appended: u64,
    /// A moment after its commit had returned.
    committed: Option<u64>,
    first_sent: Option<u64>,
    times: u64,
    /// How often a relay that sent it died before it had said so.
    unsaid: u64,
    /// How often a relay that sent it said so too late.
    late: u64,
    dead: bool,
}

impl History {
    fn next(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// How far it has come.
    pub(super) const fn moment(&self) -> u64 {
        self.moment
    }

    /// How many were committed and neither sent nor dead-lettered.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// The number of a message that is about to be appended.
    pub(super) fn append(&mut self, key: Option<u64>) -> u64 {
        let appended = self.next();
        self.messages.push(Message {
            key,
            appended,
            committed: None,
            first_sent: None,
            times: 0,
            unsaid: 0,
            late: 0,
            dead: false,
        });
        self.messages.len() as u64 - 1
    }

    /// These were committed.
    pub(super) fn commit(&mut self, numbers: &[u64]) {
        let now = self.next();
        for number in numbers {
            let message = self.message(*number);
            message.committed = Some(now);
            // A relay may have been quicker than the answer to the commit.
            let ended = message.first_sent.is_some() || message.dead;
            self.waiting += usize::from(!ended);
        }
    }

    /// This one is sent.
    pub(super) fn send(&mut self, number: u64) {
        let now = self.next();
        self.end(number);
        let message = self.message(number);
        message.first_sent.get_or_insert(now);
        message.times += 1;
    }

    /// A relay died, and its connections may have been cut. It had sent these and not said so: they may be sent again.
    pub(super) fn die(&mut self, sent: impl Iterator<Item = u64>, is_cut: bool) {
        self.deaths += 1;
        self.kills += u64::from(is_cut);
        for number in sent {
            self.message(number).unsaid += 1;
        }
    }

    /// This one was sent, and its relay said so too late: it may be sent again.
    pub(super) fn say_late(&mut self, number: u64) {
        self.message(number).late += 1;
    }

    /// This one was dead-lettered.
    pub(super) fn bury(&mut self, number: u64) {
        self.moment += 1;
        self.end(number);
        self.message(number).dead = true;
    }

    fn end(&mut self, number: u64) {
        let message = self.message(number);
        let waited = message.committed.is_some() && message.first_sent.is_none() && !message.dead;
        self.waiting -= usize::from(waited);
    }

    fn message(&mut self, number: u64) -> &mut Message {
        #[expect(
            clippy::expect_used,
            reason = "a store that hands out what nobody appended ends the trial"
        )]
        let index = usize::try_from(number).expect("a number of this history");
        &mut self.messages[index]
    }

    pub(super) fn judge(&self) -> OrderReport {
        let mut report = OrderReport {
            deaths: self.deaths,
            kills: self.kills,
            ..OrderReport::default()
        };
        let mut keys = BTreeMap::<u64, Vec<usize>>::new();
        for (number, message) in self.messages.iter().enumerate() {
            let sent = message.first_sent.is_some();
            report.committed += u64::from(message.committed.is_some());
            report.sent += u64::from(sent);
            report.dead += u64::from(message.dead);
            report.lost += u64::from(message.committed.is_some() && !sent && !message.dead);
            report.ghosts += u64::from(message.committed.is_none() && (sent || message.dead));
            let repeated = message.times.saturating_sub(1);
            let unsaid = repeated.min(message.unsaid);
            let late = (repeated - unsaid).min(message.late);
            report.repeated += unsaid;
            report.late += late;
            report.unexplained += repeated - unsaid - late;
            if let (Some(key), true) = (message.key, sent) {
                keys.entry(key).or_default().push(number);
            }
        }
        for (key, mut numbers) in keys {
            numbers.sort_unstable_by_key(|number| self.messages[*number].first_sent);
            self.judge_key(key, &numbers, &mut report);
        }
        report
    }

    /// One key's messages, in the order in which they left: none was committed before an earlier one was appended.
    fn judge_key(&self, key: u64, numbers: &[usize], report: &mut OrderReport) {
        let mut latest: Option<usize> = None;
        for &number in numbers {
            let message = &self.messages[number];
            if let (Some(before), Some(committed)) = (latest, message.committed)
                && committed < self.messages[before].appended
            {
                report.violations += 1;
                report.example.get_or_insert_with(|| {
                    format!(
                        "message {number} of key {key} was committed before message {before} was appended, and left \
                         after it"
                    )
                });
            }
            if latest.is_none_or(|before| self.messages[before].appended < message.appended) {
                latest = Some(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_nothing_when_all_is_in_order() {
        let mut history = History::default();
        let (a, b, c) = (
            history.append(Some(1)),
            history.append(Some(1)),
            history.append(None),
        );
        history.commit(&[b]);
        history.commit(&[a, c]);
        let d = history.append(Some(1));
        history.commit(&[d]);
        // The two that were open at the same time may leave in either order.
        for number in [b, c, a, d, a, c] {
            history.send(number);
        }
        history.die([a].into_iter(), true);
        history.say_late(c);
        let report = history.judge();
        assert!(report.is_sound(), "{report}");
        assert_eq!((report.committed, report.sent), (4, 4), "{report}");
        assert_eq!(
            (report.repeated, report.late, report.kills),
            (1, 1, 1),
            "{report}"
        );
    }

    #[test]
    fn should_find_each_fault_when_there_is_one() {
        let mut history = History::default();
        let a = history.append(Some(1));
        history.commit(&[a]);
        let b = history.append(Some(1));
        let lost = history.append(Some(2));
        let dead = history.append(Some(2));
        history.commit(&[b, lost, dead]);
        let ghost = history.append(Some(3));
        for number in [b, a, a, ghost] {
            history.send(number);
        }
        history.bury(dead);
        let report = history.judge();
        assert_eq!(
            (
                report.violations,
                report.lost,
                report.ghosts,
                report.unexplained,
                report.dead
            ),
            (1, 1, 1, 1, 1),
            "{report}"
        );
        assert!(!report.is_sound());
    }
}
