//! Many messages at a time: streams that are dropped with messages left, and batches.

use std::io::{self, IoSliceMut};
use std::sync::Arc;

use fastrand::Rng;
use tokio_seqpacket::{Message, MessagesOptions};

use crate::arrive::{Came, Step, arrive, end};
use crate::line::Line;
use crate::message::HEADER;
use crate::receive::{self, Form};
use crate::report::Count;
use crate::side::Side;

/// A stream takes some messages, beside a receive that waits for its end, and is dropped. No other receive waits.
pub async fn take(side: &Arc<Side>, rng: &mut Rng) -> Step {
    side.count(Count::Streams, 1);
    side.marks.add();
    // What a stream has truncated and left is read here.
    let drains = rng.u8(..4) == 0;
    let size = if drains { rng.usize(HEADER..512) } else { side.largest };
    let options = MessagesOptions::new().buffers(rng.usize(1..=40)).size(size);
    let mut stream = match side.socket.messages(options) {
        Ok(stream) => stream,
        Err(error) => {
            side.fail(&format!("no stream can be made: {error}"));
            return Step::End;
        }
    };
    let mut step = Step::Message;
    let mut line = Line::new(side);
    if rng.bool() {
        let waits = receive::receive(side.clone(), Form::Owned, side.largest);
        match Line::first_poll(waits, false).await {
            Ok(_) => side.fail("a receive did not wait for the end of a stream"),
            Err(waits) => line.keep(waits, 0, rng),
        }
    }
    let mut batch = Vec::new();
    for _ in 0..rng.u8(1..12) {
        if step == Step::End {
            break;
        }
        let next = match rng.u8(..4) {
            0 => stream.next_batch(&mut batch).await.map(|count| count > 0),
            1 => keep(std::future::poll_fn(|cx| stream.poll_next(cx)).await, &mut batch),
            2 => {
                // A future that is dropped loses nothing.
                let time = std::time::Duration::from_micros(rng.u64(..300));
                match tokio::time::timeout(time, stream.next()).await {
                    Ok(next) => keep(next, &mut batch),
                    Err(_) => continue,
                }
            }
            _ => keep(stream.next().await, &mut batch),
        };
        for message in batch.drain(..) {
            step = arrive_from(side, message, size, step);
        }
        step = match next {
            Ok(true) => step,
            Ok(false) => stream_ended(side),
            Err(error) => receive::failed(side, &error),
        };
    }
    while drains && step != Step::End {
        let Some(message) = stream.next_buffered() else { break };
        step = arrive_from(side, message, size, step);
    }
    let left = format!("{stream:?}");
    drop(stream);
    side.count(Count::StreamsLeft, u64::from(!left.contains("buffered: 0,")));
    while step != Step::End && !line.is_empty() {
        step = line.next().await.into_iter().fold(step, Step::then);
    }
    step
}

fn keep(next: Option<io::Result<Message>>, batch: &mut Vec<Message>) -> io::Result<bool> {
    let Some(next) = next else { return Ok(false) };
    batch.push(next?);
    Ok(true)
}

fn arrive_from(side: &Side, mut message: Message, size: usize, step: Step) -> Step {
    let fds = message.take_fds();
    // One that an earlier stream has left may be larger than the buffers of this one.
    let capacity = if message.len() > size { side.largest } else { size };
    let came = Came::owned(message.to_vec(), message.info(), capacity).with_fds(fds, 253);
    step.then(arrive(side, came))
}

fn stream_ended(side: &Side) -> Step {
    let mut received = side.received.lock().unwrap();
    if side.plan.marked {
        side.count(Count::SignaledEnds, 1);
    } else {
        // Options may have been changed: nothing distinguishes empty messages at the very end from the end.
        received.unsaid = side.plan.run;
    }
    drop(received);
    end(side)
}

/// `recv_batch`, some buffers.
pub async fn batch(side: &Side, capacity: usize) -> io::Result<Vec<Came>> {
    let mut buffers = vec![vec![0; capacity]; 1 + capacity % 7];
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
    let mut infos = Vec::new();
    let count = side.socket.recv_batch(&mut slices, &mut infos).await?;
    if count != infos.len() || count > buffers.len() {
        side.fail(&format!("a batch of {count} with {} infos", infos.len()));
    }
    side.count(Count::Batched, count as u64);
    let came = buffers.into_iter().zip(infos).map(|(mut bytes, info)| {
        bytes.truncate(info.bytes_read());
        Came::owned(bytes, info, capacity).control_truncated(info.ancillary_truncated())
    });
    Ok(came.collect())
}
