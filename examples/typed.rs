//! A channel of typed values between two processes' ends: serde and postcard behind a codec, one value a
//! message.
//!
//! `cargo run --example typed --features codec`

use std::io;
use std::marker::PhantomData;

use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_seqpacket::{Framed, UnixSeqpacket};
use tokio_util::bytes::{BufMut, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Sends values of one type, receives those of another.
struct Postcard<Out, In>(PhantomData<(Out, In)>);

type Channel<Out, In> = Framed<Postcard<Out, In>>;

fn channel<Out, In>(socket: UnixSeqpacket) -> Channel<Out, In> {
    Framed::new(socket, Postcard(PhantomData))
}

impl<Out: Serialize, In> Encoder<Out> for Postcard<Out, In> {
    type Error = io::Error;

    fn encode(&mut self, value: Out, to: &mut BytesMut) -> io::Result<()> {
        postcard::to_io(&value, to.writer()).map(drop).map_err(invalid)
    }
}

impl<Out, In: DeserializeOwned> Decoder for Postcard<Out, In> {
    type Item = In;
    type Error = io::Error;

    /// Messages keep their boundaries: all that is there is one value.
    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<In>> {
        let bytes = from.split();
        let (value, rest) = postcard::take_from_bytes(&bytes).map_err(invalid)?;
        if !rest.is_empty() {
            return Err(invalid("more bytes than the value has"));
        }
        Ok(Some(value))
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> io::Result<Option<In>> {
        self.decode(from)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Add(i64, i64),
    Reverse(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Answer {
    Number(i64),
    Text(String),
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let (client, server) = UnixSeqpacket::pair()?;
    let serving = tokio::spawn(serve(channel(server)));

    let mut client: Channel<Request, Answer> = channel(client);
    for (request, expected) in [
        (Request::Add(40, 2), Answer::Number(42)),
        (Request::Reverse("tekcapqes".into()), Answer::Text("seqpacket".into())),
    ] {
        println!("{request:?}");
        client.send(request).await?;
        let answer = client.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
        println!("  {answer:?}");
        assert_eq!(answer, expected);
    }
    client.close().await?;
    serving.await?
}

async fn serve(mut channel: Channel<Answer, Request>) -> io::Result<()> {
    while let Some(request) = channel.next().await {
        let answer = match request? {
            Request::Add(a, b) => Answer::Number(a.wrapping_add(b)),
            Request::Reverse(text) => Answer::Text(text.chars().rev().collect()),
        };
        channel.send(answer).await?;
    }
    Ok(())
}
