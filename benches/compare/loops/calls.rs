//! Raw loops on readiness: plain non-blocking system calls, epoll only where there is something to wait for.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tempfile::TempDir;

use super::{Maker, Threads, Turn, mmsg};
use crate::contestants::{Contestant, Rig};
use crate::libraries::{socketpair, whole};
use crate::rig::PAUSE;
use crate::work::{SMALL, Setting, Way, Work};

/// How a loop finds out where there is something to receive, if it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// epoll says so.
    Epoll,
    /// It tries one socket after the other, and never waits: what two threads can reach at best.
    Sweep,
}

type Pairs = Vec<(OwnedFd, OwnedFd)>;

impl Contestant for Calls {
    fn name(&self) -> &'static str {
        match self {
            Self::Epoll => "raw system calls",
            Self::Sweep => "raw system calls, sweeping",
        }
    }

    fn short(&self) -> &'static str {
        match self {
            Self::Epoll => "calls",
            Self::Sweep => "sweep",
        }
    }

    fn rig(&self, setting: Setting, work: Work) -> Result<Box<dyn Rig>, String> {
        let how = *self;
        let pairs = match (how, setting, work) {
            (Self::Sweep, Setting::TwoRuntimes | Setting::TwoBusy, Work::Echo { pairs, .. }) => {
                pairs
            }
            (Self::Epoll, Setting::TwoBusy, _) => return Err("it does not poll busily".into()),
            (Self::Sweep, ..) => {
                return Err("as raw system calls, which wait with two runtimes only".into());
            }
            (_, _, Work::Echo { pairs, .. } | Work::Calls { pairs }) => pairs,
            _ => 1,
        };
        let sockets: io::Result<Pairs> =
            (0..pairs).map(|_| socketpair(SocketType::SEQPACKET)).collect();
        let mut sockets = sockets.map_err(|error| error.to_string())?;
        let rig = match (setting, work) {
            (Setting::MultiThread, Work::Echo { size, descriptor: false, .. }) => {
                // Half of the pairs on each thread, both ends on the same one.
                let others = sockets.split_off(pairs.div_ceil(2));
                let halves = [sockets, others].into_iter().filter(|half| !half.is_empty());
                let maker = |half| -> Maker { Box::new(move || echo(half, size)) };
                Threads::new(pairs, halves.map(maker).collect())
            }
            (Setting::MultiThread | Setting::BlockOn, _)
            | (
                _,
                Work::Changing { .. }
                | Work::Flood { .. }
                | Work::Beside { .. }
                | Work::Memory
                | Work::Pipe { .. },
            ) => {
                return Err("a plain loop has no tasks".into());
            }
            (_, Work::Volleys { .. } | Work::Large { .. }) => {
                return Err("the loop was not written for this".into());
            }
            (_, Work::Echo { descriptor: true, .. }) => {
                Threads::new(pairs, vec![Box::new(move || descriptors(sockets))])
            }
            (Setting::TwoRuntimes | Setting::TwoBusy, Work::Echo { size, .. }) => {
                let (servers, clients) = sockets.into_iter().unzip();
                let server = move || serve(servers, size, how);
                let client = move || ask(clients, size, how);
                Threads::new(pairs, vec![Box::new(server), Box::new(client)])
            }
            (Setting::CurrentThread, Work::Echo { size, .. }) => {
                Threads::new(pairs, vec![Box::new(move || echo(sockets, size))])
            }
            (_, Work::Calls { .. }) => {
                Threads::new(pairs, vec![Box::new(move || echo(sockets, SMALL))])
            }
            (Setting::CurrentThread, Work::OneWay { .. }) => {
                Threads::new(1, vec![Box::new(move || one_way(sockets))])
            }
            (_, Work::OneWay { way }) if way != Way::Plain => {
                let (receiver, sender) = sockets.remove(0);
                let receiver = move || Ok(mmsg::receive(receiver));
                Threads::new(1, vec![Box::new(receiver), Box::new(move || Ok(mmsg::send(sender)))])
            }
            (_, Work::OneWay { .. }) => {
                let (receiver, sender) = sockets.remove(0);
                let receiver = move || Ok(receive(receiver));
                Threads::new(1, vec![Box::new(receiver), Box::new(move || Ok(send(sender)))])
            }
            (_, Work::Paced) => {
                let (server, client) = sockets.remove(0);
                let server = move || serve(vec![server], SMALL, how);
                Threads::new(1, vec![Box::new(server), Box::new(move || Ok(paced(client)))])
            }
            (_, Work::Connect) => Threads::new(1, vec![Box::new(connect)]),
        };
        Ok(Box::new(rig?))
    }

    fn idle(&self, _count: usize, _sample: &mut dyn FnMut()) -> Result<(), String> {
        Err("a plain loop has no tasks; its sockets are the kernel's memory".into())
    }
}

fn put(fd: &OwnedFd, message: &[u8]) -> io::Result<()> {
    whole(rustix::net::send(fd, message, SendFlags::NOSIGNAL)?, message)
}

fn take(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
    let (len, _) = rustix::net::recv(fd, &mut *buffer, RecvFlags::empty())?;
    whole(len, buffer)
}

/// One side after the other: a receive always finds its message.
fn echo(pairs: Pairs, size: usize) -> io::Result<Turn> {
    let mut buffer = vec![7; size];
    Ok(Box::new(move |each| {
        for _ in 0..each {
            for (_, client) in &pairs {
                put(client, &buffer)?;
            }
            for (server, _) in &pairs {
                take(server, &mut buffer)?;
                put(server, &buffer)?;
            }
            for (_, client) in &pairs {
                take(client, &mut buffer)?;
            }
        }
        Ok(Vec::new())
    }))
}

fn descriptors(pairs: Pairs) -> io::Result<Turn> {
    let file = File::open("/dev/null")?;
    Ok(Box::new(move |each| {
        for _ in 0..each {
            for (_, client) in &pairs {
                put_descriptor(client, &file)?;
            }
            for (server, _) in &pairs {
                put_descriptor(server, take_descriptor(server)?)?;
            }
            for (_, client) in &pairs {
                take_descriptor(client)?;
            }
        }
        Ok(Vec::new())
    }))
}

fn put_descriptor(fd: &OwnedFd, descriptor: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); 64];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let message = [io::IoSlice::new(&[7; SMALL])];
    rustix::net::sendmsg(fd, &message, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn take_descriptor(fd: &OwnedFd) -> io::Result<OwnedFd> {
    let (mut space, mut buffer) = ([MaybeUninit::uninit(); 64], [0; SMALL]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut message = [io::IoSliceMut::new(&mut buffer)];
    rustix::net::recvmsg(fd, &mut message, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("a descriptor was lost"))
}

/// Sockets that are waited for together.
struct Many {
    epoll: Option<OwnedFd>,
    sockets: Vec<OwnedFd>,
    ready: Vec<epoll::Event>,
}

impl Many {
    fn new(sockets: Vec<OwnedFd>, how: Calls) -> io::Result<Self> {
        if how == Calls::Sweep {
            return Ok(Self { epoll: None, sockets, ready: Vec::new() });
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (at, socket) in sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&epoll, socket, data, epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll: Some(epoll), sockets, ready: Vec::with_capacity(1024) })
    }

    /// Receive `count` messages, wherever they come, and call `then` after each.
    fn messages(
        &mut self,
        count: usize,
        buffer: &mut [u8],
        mut then: impl FnMut(usize, &OwnedFd, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut left = count;
        let Some(epoll) = &self.epoll else {
            while left > 0 {
                for (at, socket) in self.sockets.iter().enumerate() {
                    match take(socket, buffer) {
                        Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => {}
                        received => {
                            received?;
                            then(at, socket, buffer)?;
                            left -= 1;
                        }
                    }
                }
            }
            return Ok(());
        };
        while left > 0 {
            self.ready.clear();
            epoll::wait(epoll, rustix::buffer::spare_capacity(&mut self.ready), None)?;
            for event in &self.ready {
                let at = event.data.u64() as usize;
                take(&self.sockets[at], buffer)?;
                then(at, &self.sockets[at], buffer)?;
                left -= 1;
            }
        }
        Ok(())
    }
}

fn serve(sockets: Vec<OwnedFd>, size: usize, how: Calls) -> io::Result<Turn> {
    let mut many = Many::new(sockets, how)?;
    let mut buffer = vec![0; size];
    Ok(Box::new(move |each| {
        let count = each * many.sockets.len();
        many.messages(count, &mut buffer, |_, socket, message| put(socket, message))?;
        Ok(Vec::new())
    }))
}

fn ask(sockets: Vec<OwnedFd>, size: usize, how: Calls) -> io::Result<Turn> {
    let mut many = Many::new(sockets, how)?;
    let mut buffer = vec![7; size];
    Ok(Box::new(move |each| {
        let pairs = many.sockets.len();
        for socket in &many.sockets {
            put(socket, &buffer)?;
        }
        let mut left = vec![each - 1; pairs];
        many.messages(each * pairs, &mut buffer, |at, socket, message| {
            if left[at] == 0 {
                return Ok(());
            }
            left[at] -= 1;
            put(socket, message)
        })?;
        Ok(Vec::new())
    }))
}

fn one_way(pairs: Pairs) -> io::Result<Turn> {
    let mut buffer = [7; SMALL];
    Ok(Box::new(move |each| {
        for _ in 0..each {
            for (receiver, sender) in &pairs {
                put(sender, &buffer)?;
                take(receiver, &mut buffer)?;
            }
        }
        Ok(Vec::new())
    }))
}

/// Try, and wait if that would block.
pub fn patiently<T>(
    socket: &OwnedFd,
    until: PollFlags,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => {
                poll(&mut [PollFd::new(socket, until)], None)?;
            }
            result => return result,
        }
    }
}

fn send(socket: OwnedFd) -> Turn {
    Box::new(move |each| {
        for _ in 0..each {
            patiently(&socket, PollFlags::OUT, || put(&socket, &[7; SMALL]))?;
        }
        Ok(Vec::new())
    })
}

fn receive(socket: OwnedFd) -> Turn {
    Box::new(move |each| {
        for _ in 0..each {
            patiently(&socket, PollFlags::IN, || take(&socket, &mut [0; SMALL]))?;
        }
        Ok(Vec::new())
    })
}

fn paced(socket: OwnedFd) -> Turn {
    Box::new(move |each| {
        let mut samples = Vec::with_capacity(each);
        for _ in 0..each {
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            put(&socket, &[7; SMALL])?;
            patiently(&socket, PollFlags::IN, || take(&socket, &mut [0; SMALL]))?;
            samples.push(start.elapsed().as_nanos() as f64);
        }
        Ok(samples)
    })
}

fn connect() -> io::Result<Turn> {
    let directory = TempDir::new()?;
    let address = SocketAddrUnix::new(directory.path().join("socket"))?;
    let socket = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
    };
    let listener = socket()?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 128)?;
    Ok(Box::new(move |each| {
        let _kept = &directory;
        for _ in 0..each {
            let client = socket()?;
            rustix::net::connect(&client, &address)?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            drop((rustix::net::accept_with(&listener, flags)?, client));
        }
        Ok(Vec::new())
    }))
}
