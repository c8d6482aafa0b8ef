//! What happened on one end of a connection, and the judge that compares both ends.
//!
//! A message costs constant work and, if it was neither refused, dropped nor empty, no memory. The
//! sender lists the exceptions by sequence number, the receiver the gaps that it saw; once both ends
//! have handed in, one walk over both lists shows what is wrong.

use std::collections::VecDeque;

use crate::plan::End;

/// Events kept for the failure message.
const KEPT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// First poll of a send that did not complete there.
    Waits = 0,
    Sent,
    Dropped,
    Refused,
    Received,
    Empty,
    DroppedReceive,
    Failed,
    End,
    /// The descriptor went to another socket.
    Renewed,
}

const WHATS: [What; 10] = [
    What::Waits,
    What::Sent,
    What::Dropped,
    What::Refused,
    What::Received,
    What::Empty,
    What::DroppedReceive,
    What::Failed,
    What::End,
    What::Renewed,
];

/// The last events of one direction at one end.
#[derive(Debug, Default, Clone)]
pub struct Tail(VecDeque<u64>);

impl Tail {
    pub fn note(&mut self, what: What, sequence: u64, number: u64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0
            .push_back((what as u64) << 60 | (number & 0xf_ffff) << 40 | sequence & 0xff_ffff_ffff);
    }

    /// The events around this sequence number, if they are still known, else the last.
    fn describe(&self, around: Option<u64>) -> String {
        let near =
            |event: &&u64| around.is_some_and(|at| (*event & 0xff_ffff_ffff).abs_diff(at) <= 4);
        let mut events: Vec<u64> = self.0.iter().filter(near).copied().collect();
        if events.is_empty() {
            events = self.0.iter().rev().take(24).rev().copied().collect();
        }
        let describe = |event: u64| {
            let (sequence, number) = (event & 0xff_ffff_ffff, event >> 40 & 0xf_ffff);
            match WHATS[(event >> 60) as usize] {
                What::Waits => format!("#{sequence} waits"),
                What::Sent => format!("#{sequence} sent ({number} bytes)"),
                What::Dropped => format!("#{sequence} dropped"),
                What::Refused => format!("#{sequence} failed, errno {number}"),
                What::Received => format!("#{sequence} received ({number} bytes)"),
                What::Empty => format!("0 bytes after #{sequence}"),
                What::DroppedReceive => format!("a receive dropped after #{sequence}"),
                What::Failed => format!("a receive failed after #{sequence}, errno {number}"),
                What::End => format!("end after #{sequence}"),
                What::Renewed => format!("another socket after #{sequence} (whole: {number})"),
            }
        };
        events.into_iter().map(describe).collect::<Vec<_>>().join("; ")
    }
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Ok = 0,
    Dropped = 1,
    Failed = 2,
}

/// The sending direction of an end.
#[derive(Debug, Default, Clone)]
pub struct Sent {
    /// The last sequence number; the first is 1.
    pub count: u64,
    /// All but the messages with a header that were sent: sequence number, empty, fate.
    pub exceptions: Vec<u64>,
    /// The last message has been handed over, or there will be none.
    pub over: bool,
    /// Empty messages since one that is not was sent.
    pub run: u64,
    pub tail: Tail,
}

impl Sent {
    pub fn settle(&mut self, sequence: u64, empty: bool, fate: Fate) {
        if !empty && fate == Fate::Ok {
            self.run = 0;
        }
        if empty || fate != Fate::Ok {
            self.exceptions.push(sequence << 3 | u64::from(empty) << 2 | fate as u64);
        }
    }
}

/// How the receiving direction of an end ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This end went away.
    #[default]
    Left = 0,
    /// With the last message, or with the end of the stream.
    AtEnd = 1,
}

/// The receiving direction of an end.
#[derive(Debug, Default, Clone)]
pub struct Received {
    /// The last sequence number.
    pub last: u64,
    /// Empty messages since.
    pub empties: u64,
    /// Of what came since: empty messages, or the end.
    pub doubtful: u64,
    /// So many more may have come if this was the end: no call distinguished them from it.
    pub unsaid: u64,
    /// After which sequence number how many are missing, and how many empty messages were there.
    pub gaps: Vec<(u64, u64, u64)>,
    pub ended: Ended,
    pub tail: Tail,
}

impl Received {
    /// A message with a header has come.
    ///
    /// # Errors
    /// It should not have.
    pub fn arrive(&mut self, sequence: u64) -> Result<(), String> {
        if sequence == self.last {
            return Err(format!("#{sequence} was delivered twice"));
        }
        if sequence < self.last {
            return Err(format!("#{sequence} was delivered after #{}", self.last));
        }
        let missing = sequence - self.last - 1;
        // Nothing comes after the end.
        let empties = self.empties + self.doubtful;
        if missing > 0 || empties > 0 {
            self.gaps.push((self.last, missing, empties));
        }
        (self.last, self.empties, self.doubtful, self.unsaid) = (sequence, 0, 0, 0);
        Ok(())
    }
}

/// Both directions of one end, once no call can add to them.
#[derive(Debug, Clone)]
pub struct Record {
    pub slot: u16,
    pub life: u64,
    pub end: End,
    pub sent: Sent,
    pub received: Received,
}

/// Compare what one end sent with what the other received.
///
/// # Errors
/// What is wrong, in words, with the history that shows it.
pub fn judge(sender: &Record, receiver: &Record) -> Result<(), String> {
    let (sent, received) = (&sender.sent, &receiver.received);
    let failed = |at: u64, what: String| {
        Err(format!(
            "connection {} life {}, from {:?}: {what}\n  sender: {}\n  receiver: {}",
            sender.slot,
            sender.life,
            sender.end,
            sent.tail.describe(Some(at)),
            received.tail.describe(Some(at)),
        ))
    };
    let mut exceptions = sent.exceptions.clone();
    exceptions.sort_unstable();
    let mut exceptions = exceptions.into_iter().map(|word| (word >> 3, word & 4 != 0, word & 3));
    let mut next = exceptions.next();
    // Up to a gap everything has come; what is listed came although it was dropped.
    let came = |(sequence, empty, fate): (u64, bool, u64)| match fate {
        _ if empty => failed(sequence, format!("#{sequence} was sent empty and came with bytes")),
        fate if fate == Fate::Failed as u64 => {
            failed(sequence, format!("#{sequence} failed, and was delivered"))
        }
        _ => Ok(()),
    };
    for &(after, missing, empties) in &received.gaps {
        while let Some(exception) = next.filter(|(sequence, ..)| *sequence <= after) {
            came(exception)?;
            next = exceptions.next();
        }
        let (mut least, mut most) = (0, 0);
        for sequence in after + 1..=after + missing {
            match next.filter(|(listed, ..)| *listed == sequence) {
                None => return failed(sequence, format!("#{sequence} was sent, and is lost")),
                Some((_, empty, fate)) => {
                    least += u64::from(empty && fate == Fate::Ok as u64);
                    most += u64::from(empty && fate != Fate::Failed as u64);
                }
            }
            next = exceptions.next();
        }
        if empties < least || empties > most {
            let what = format!(
                "after #{after} came {empties} empty messages; {least} were sent, and {} dropped",
                most - least
            );
            return failed(after, what);
        }
    }
    while let Some(exception) = next.filter(|(sequence, ..)| *sequence <= received.last) {
        came(exception)?;
        next = exceptions.next();
    }
    if received.ended == Ended::AtEnd {
        let (mut least, mut most) = (0, 0);
        for sequence in received.last + 1..=sent.count {
            match next.filter(|(listed, ..)| *listed == sequence) {
                None => {
                    let what = format!("#{sequence} was sent before the end, and is lost");
                    return failed(sequence, what);
                }
                Some((_, empty, fate)) => {
                    least += u64::from(empty && fate == Fate::Ok as u64);
                    most += u64::from(empty && fate != Fate::Failed as u64);
                }
            }
            next = exceptions.next();
        }
        let Received { empties, doubtful, unsaid, .. } = *received;
        if empties > most || empties + doubtful + unsaid < least {
            let what = format!(
                "before the end came {empties} empty messages and {doubtful} in doubt; {least} were \
                 sent, and {} dropped",
                most - least
            );
            return failed(received.last, what);
        }
    }
    Ok(())
}

impl Record {
    pub fn describe(&self) -> String {
        format!(
            "{:?} sent: {}\n  {:?} received: {}",
            self.end,
            self.sent.tail.describe(None),
            self.end,
            self.received.tail.describe(None)
        )
    }

    pub fn to_words(&self) -> Vec<u64> {
        let mut words = vec![
            u64::from(self.slot),
            self.life,
            self.end as u64,
            self.sent.count,
            self.received.last,
            self.received.empties,
            self.received.doubtful,
            self.received.unsaid,
            self.received.ended as u64,
        ];
        let mut list = |list: &mut dyn ExactSizeIterator<Item = u64>| {
            words.push(list.len() as u64);
            words.extend(list);
        };
        list(&mut self.sent.exceptions.iter().copied());
        list(&mut self.sent.tail.0.iter().copied());
        list(&mut self.received.tail.0.iter().copied());
        for &(after, missing, empties) in &self.received.gaps {
            words.extend([after, missing << 32 | empties]);
        }
        words
    }

    pub fn from_words(words: &[u64]) -> Self {
        let (head, mut rest) = words.split_at(9);
        let mut list = || {
            let (items, after) = rest[1..].split_at(rest[0] as usize);
            rest = after;
            items.to_vec()
        };
        let exceptions = list();
        let (sent_tail, received_tail) = (Tail(list().into()), Tail(list().into()));
        let gap = |words: &[u64]| (words[0], words[1] >> 32, words[1] & 0xffff_ffff);
        Self {
            slot: head[0] as u16,
            life: head[1],
            end: if head[2] == 0 { End::Main } else { End::Peer },
            sent: Sent { count: head[3], exceptions, tail: sent_tail, ..Sent::default() },
            received: Received {
                last: head[4],
                empties: head[5],
                doubtful: head[6],
                unsaid: head[7],
                ended: if head[8] == 0 { Ended::Left } else { Ended::AtEnd },
                gaps: rest.chunks_exact(2).map(gap).collect(),
                tail: received_tail,
            },
        }
    }
}
