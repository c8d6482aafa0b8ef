//! The floor for io_uring: one ring on each thread, a loop around it, and as little else as possible.
//!
//! A server's receive is armed again with each answer; a client's is submitted with its send. All that a batch of
//! completions asks for goes to the kernel in one call, which also waits for the next.

#![allow(unsafe_code, reason = "a ring in the raw")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::net::SocketType;

use super::{Threads, Turn};
use crate::contestants::{Contestant, Rig};
use crate::libraries::{cut_short, socketpair};
use crate::rig::PAUSE;
use crate::work::{SMALL, Setting, Work};

/// SEND and RECV, or SENDMSG and RECVMSG.
pub struct RawRing {
    pub messages: bool,
}

impl Contestant for RawRing {
    fn name(&self) -> &'static str {
        if self.messages { "raw ring, SENDMSG/RECVMSG" } else { "raw ring, SEND/RECV" }
    }

    fn short(&self) -> &'static str {
        if self.messages { "ringmsg" } else { "ring" }
    }

    fn rig(&self, setting: Setting, work: Work) -> Result<Box<dyn Rig>, String> {
        let messages = self.messages;
        let (pairs, size, pauses) = match work {
            _ if matches!(setting, Setting::MultiThread | Setting::BlockOn) => {
                return Err("a plain loop has no tasks".into());
            }
            Work::Echo { descriptor: true, .. } => {
                return Err("the loop was not written for descriptors".into());
            }
            Work::Echo { pairs, size, .. } => (pairs, size, false),
            Work::Calls { pairs } => (pairs, SMALL, false),
            Work::Paced => (1, SMALL, true),
            Work::OneWay | Work::Connect => {
                return Err("the loop was written for round trips".into());
            }
            Work::Changing { .. } | Work::Flood { .. } | Work::Beside { .. } | Work::Memory => {
                return Err("a plain loop has no tasks".into());
            }
        };
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let (server, client) =
                socketpair(SocketType::SEQPACKET).map_err(|error| error.to_string())?;
            servers.push((Role::Server, server));
            clients.push((Role::Client, client));
        }
        let plan = Plan { messages, size, pauses };
        let rig = if setting == Setting::TwoRuntimes {
            Threads::new(
                pairs,
                vec![Box::new(move || turn(plan, servers)), Box::new(move || turn(plan, clients))],
            )
        } else {
            servers.append(&mut clients);
            Threads::new(pairs, vec![Box::new(move || turn(plan, servers))])
        };
        Ok(Box::new(rig?))
    }

    fn idle(&self, _count: usize, _look: &mut dyn FnMut()) -> Result<(), String> {
        Err("a plain loop has no tasks".into())
    }
}

#[derive(Clone, Copy)]
struct Plan {
    messages: bool,
    size: usize,
    pauses: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Server,
    Client,
}

/// A socket and what the kernel may touch of it, in one allocation that stays where it is.
struct Endpoint {
    role: Role,
    fd: OwnedFd,
    /// Round trips that are still to be started (client) or answered (server).
    left: usize,
    armed: bool,
    outgoing: Side,
    incoming: Side,
}

struct Side {
    buffer: Vec<u8>,
    vector: Box<libc::iovec>,
    header: Box<libc::msghdr>,
}

impl Side {
    fn new(size: usize) -> Self {
        let mut buffer = vec![7; size];
        let mut vector =
            Box::new(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size });
        // SAFETY: a C struct of integers and pointers, for which all zeroes is a value.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_iov = &raw mut *vector;
        header.msg_iovlen = 1;
        Self { buffer, vector, header }
    }
}

impl Endpoint {
    fn send(&mut self, messages: bool) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        let Side { buffer, vector, header } = &mut self.outgoing;
        let flags = libc::MSG_NOSIGNAL;
        if messages {
            vector.iov_len = buffer.len();
            opcode::SendMsg::new(fd, &raw const **header).flags(flags as u32).build()
        } else {
            opcode::Send::new(fd, buffer.as_ptr(), buffer.len() as u32).flags(flags).build()
        }
    }

    fn recv(&mut self, messages: bool) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        let Side { buffer, header, .. } = &mut self.incoming;
        self.armed = true;
        if messages {
            opcode::RecvMsg::new(fd, &raw mut **header).build()
        } else {
            opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).build()
        }
    }
}

/// A ring and its sockets. Only a loop that has all its completions gives up an endpoint.
struct Loop {
    plan: Plan,
    // Before the endpoints: it is closed first.
    ring: IoUring,
    endpoints: Vec<Endpoint>,
    /// Sends whose completion is still to come.
    sending: usize,
    /// What completes together.
    batch: Vec<(u64, i32)>,
}

fn turn(plan: Plan, sockets: Vec<(Role, OwnedFd)>) -> io::Result<Turn> {
    let entries = (4 * sockets.len()).next_power_of_two().clamp(64, 8192) as u32;
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .build(entries)?;
    let endpoints = sockets
        .into_iter()
        .map(|(role, fd)| Endpoint {
            role,
            fd,
            left: 0,
            armed: false,
            outgoing: Side::new(plan.size),
            incoming: Side::new(plan.size),
        })
        .collect();
    let mut this = Loop { plan, ring, endpoints, sending: 0, batch: Vec::new() };
    Ok(Box::new(move |each| {
        if !this.plan.pauses || this.endpoints[0].role == Role::Server {
            this.round(each)?;
            return Ok(Vec::new());
        }
        let mut samples = Vec::with_capacity(each);
        for _ in 0..each {
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            this.round(1)?;
            samples.push(start.elapsed().as_nanos() as f64);
        }
        Ok(samples)
    }))
}

const SEND: u64 = 1 << 32;

impl Loop {
    fn round(&mut self, each: usize) -> io::Result<()> {
        let both = self.endpoints.iter().any(|end| end.role == Role::Server)
            && self.endpoints.iter().any(|end| end.role == Role::Client);
        let mut left = 0;
        for at in 0..self.endpoints.len() {
            self.endpoints[at].left = each;
            match self.endpoints[at].role {
                Role::Client => {
                    left += each;
                    self.start(at)?;
                }
                Role::Server => {
                    // In one ring with the clients, it is they who count.
                    left += if both { 0 } else { each };
                    if !self.endpoints[at].armed {
                        self.receive(at)?;
                    }
                }
            }
        }
        while left > 0 || self.sending > 0 {
            self.ring.submit_and_wait(1)?;
            let mut batch = std::mem::take(&mut self.batch);
            batch.extend(self.ring.completion().map(|done| (done.user_data(), done.result())));
            for (key, result) in batch.drain(..) {
                let at = (key & (SEND - 1)) as usize;
                if result != self.plan.size as i32 {
                    return Err(match result {
                        error @ ..0 => io::Error::from_raw_os_error(-error),
                        _ => cut_short(),
                    });
                }
                if key & SEND != 0 {
                    self.sending -= 1;
                } else {
                    left -= self.received(at, both)?;
                }
            }
            self.batch = batch;
        }
        Ok(())
    }

    /// How much less there is to do.
    fn received(&mut self, at: usize, both: bool) -> io::Result<usize> {
        self.endpoints[at].armed = false;
        match self.endpoints[at].role {
            Role::Server => {
                let end = &mut self.endpoints[at];
                // As if it had been looked at and answered.
                std::mem::swap(&mut end.incoming, &mut end.outgoing);
                self.send(at)?;
                self.receive(at)?;
                Ok(usize::from(!both))
            }
            Role::Client => {
                if self.endpoints[at].left > 0 {
                    self.start(at)?;
                }
                Ok(1)
            }
        }
    }

    fn start(&mut self, at: usize) -> io::Result<()> {
        self.endpoints[at].left -= 1;
        self.send(at)?;
        self.receive(at)
    }

    fn send(&mut self, at: usize) -> io::Result<()> {
        let entry = self.endpoints[at].send(self.plan.messages);
        self.sending += 1;
        self.push(entry.user_data(at as u64 | SEND))
    }

    fn receive(&mut self, at: usize) -> io::Result<()> {
        let entry = self.endpoints[at].recv(self.plan.messages);
        self.push(entry.user_data(at as u64))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the entry points into buffers and headers that `endpoints` owns on the heap: they
            // outlive the ring (field order) and Drop's cancel.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

impl Drop for Loop {
    /// The kernel lets go of all buffers before they are freed.
    fn drop(&mut self) {
        let all = types::CancelBuilder::any();
        let cancelled = self.ring.submitter().register_sync_cancel(None, all);
        let none_left = match &cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        if !none_left {
            std::mem::forget(std::mem::take(&mut self.endpoints));
        }
    }
}
