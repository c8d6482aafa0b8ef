//! The floor for io_uring: one ring on each thread, a loop around it, and as little else as possible.
//!
//! A server's receive is armed again with each answer; a client's is submitted with its send. All that a batch of
//! completions asks for goes to the kernel in one call, which also waits for the next.

#![allow(unsafe_code, reason = "a ring in the raw")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::net::SocketType;

use super::{Threads, Turn};
use crate::contestants::{Contestant, Rig};
use crate::libraries::{cut_short, socketpair};
use crate::rig::PAUSE;
use crate::work::{SMALL, Setting, Work};

/// The operations it is made of.
#[derive(Clone, Copy, PartialEq)]
pub enum RawRing {
    /// SEND and RECV.
    Plain,
    /// SENDMSG and RECVMSG.
    Messages,
    /// SEND, and one RECV for all messages of a socket, into buffers that the ring is given.
    Multishot,
}

impl Contestant for RawRing {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain => "raw ring, SEND/RECV",
            Self::Messages => "raw ring, SENDMSG/RECVMSG",
            Self::Multishot => "raw ring, multishot RECV",
        }
    }

    fn short(&self) -> &'static str {
        match self {
            Self::Plain => "ring",
            Self::Messages => "ringmsg",
            Self::Multishot => "multi",
        }
    }

    fn rig(&self, setting: Setting, work: Work) -> Result<Box<dyn Rig>, String> {
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
        let plan = Plan { operations: *self, size, pauses };
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
    operations: RawRing,
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
    fn send(&mut self, operations: RawRing) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        let Side { buffer, vector, header } = &mut self.outgoing;
        let flags = libc::MSG_NOSIGNAL;
        if operations == RawRing::Messages {
            vector.iov_len = buffer.len();
            opcode::SendMsg::new(fd, &raw const **header).flags(flags as u32).build()
        } else {
            opcode::Send::new(fd, buffer.as_ptr(), buffer.len() as u32).flags(flags).build()
        }
    }

    fn recv(&mut self, operations: RawRing) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        let Side { buffer, header, .. } = &mut self.incoming;
        self.armed = true;
        match operations {
            RawRing::Plain => {
                opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).build()
            }
            RawRing::Messages => opcode::RecvMsg::new(fd, &raw mut **header).build(),
            RawRing::Multishot => opcode::RecvMulti::new(fd, GROUP).build(),
        }
    }
}

/// The buffers' group.
const GROUP: u16 = 0;

/// Buffers that the kernel picks from, and the ring through which it is given them.
struct Given {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    count: u16,
    tail: u16,
    buffers: Vec<u8>,
    size: usize,
}

impl Given {
    fn to(ring: &IoUring, at_least: usize, size: usize) -> io::Result<Self> {
        let count = at_least.next_power_of_two().min(1 << 15) as u16;
        let layout = Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(4096))
            .expect("fits");
        // SAFETY: the layout is not empty. Zeroed: entries are integers.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) }.cast()).expect("memory");
        let buffers = vec![0; usize::from(count) * size];
        let mut this = Self { entries, layout, count, tail: 0, buffers, size };
        let address = this.entries.as_ptr() as u64;
        // SAFETY: the entries are freed by Drop, after the ring is closed (Loop's field order).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0)? };
        (0..count).for_each(|id| this.give(id));
        Ok(this)
    }

    fn give(&mut self, id: u16) {
        let buffer = &mut self.buffers[usize::from(id) * self.size..][..self.size];
        let at = usize::from(self.tail & (self.count - 1));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the index is below the count; the kernel reads entries only up to the tail, which is
        // stored after they are written. The tail lies in the first entry's reserved field, and is an
        // aligned u16 that the kernel and this thread share.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(buffer.as_mut_ptr() as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `to`.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}

/// A ring and its sockets. Only a loop that has all its completions gives up an endpoint.
struct Loop {
    plan: Plan,
    // Before the endpoints: it is closed first.
    ring: IoUring,
    given: Option<Given>,
    endpoints: Vec<Endpoint>,
    /// Sends whose completion is still to come.
    sending: usize,
    /// What completes together.
    batch: Vec<(u64, i32, u32)>,
}

fn turn(plan: Plan, sockets: Vec<(Role, OwnedFd)>) -> io::Result<Turn> {
    let count = sockets.len();
    let entries = (4 * count).next_power_of_two().clamp(64, 8192) as u32;
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
    let given = match plan.operations {
        RawRing::Multishot => Some(Given::to(&ring, 2 * count, plan.size)?),
        _ => None,
    };
    let mut this = Loop { plan, ring, given, endpoints, sending: 0, batch: Vec::new() };
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
                    self.arm(at)?;
                }
            }
        }
        while left > 0 || self.sending > 0 {
            self.ring.submit_and_wait(1)?;
            let mut batch = std::mem::take(&mut self.batch);
            let told =
                |done: io_uring::cqueue::Entry| (done.user_data(), done.result(), done.flags());
            batch.extend(self.ring.completion().map(told));
            for (key, result, flags) in batch.drain(..) {
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
                    self.endpoints[at].armed = io_uring::cqueue::more(flags);
                    if let (Some(given), Some(id)) =
                        (&mut self.given, io_uring::cqueue::buffer_select(flags))
                    {
                        given.give(id);
                    }
                    left -= self.received(at, both)?;
                }
            }
            self.batch = batch;
        }
        Ok(())
    }

    /// How much less there is to do.
    fn received(&mut self, at: usize, both: bool) -> io::Result<usize> {
        match self.endpoints[at].role {
            Role::Server => {
                let end = &mut self.endpoints[at];
                // As if it had been looked at and answered.
                std::mem::swap(&mut end.incoming, &mut end.outgoing);
                self.send(at)?;
                self.arm(at)?;
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
        self.arm(at)
    }

    fn send(&mut self, at: usize) -> io::Result<()> {
        let entry = self.endpoints[at].send(self.plan.operations);
        self.sending += 1;
        self.push(entry.user_data(at as u64 | SEND))
    }

    /// Have a receive in flight.
    fn arm(&mut self, at: usize) -> io::Result<()> {
        if self.endpoints[at].armed {
            return Ok(());
        }
        let entry = self.endpoints[at].recv(self.plan.operations);
        self.push(entry.user_data(at as u64))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the entry points into buffers and headers that `endpoints` owns on the heap, or to the
            // group of buffers that `given` owns: they outlive the ring (field order) and Drop's cancel.
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
            std::mem::forget((std::mem::take(&mut self.endpoints), self.given.take()));
        }
    }
}
