//! A socket: both lanes, one driver.

use super::{Ring, receive, send};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Receive(receive::Event),
    Send(send::Event),
    /// The driver goes; whether its ring still lets it reap.
    Die {
        reaps: bool,
    },
    /// The kernel has forgotten the ring of the driver that is gone.
    Exhume,
    Close,
}

#[derive(Default)]
pub(crate) struct Model {
    receive: receive::Model,
    send: send::Model,
}

impl Model {
    /// Run a schedule from beginning to end, and check what holds at any time and what holds then.
    pub(crate) fn run(events: impl IntoIterator<Item = Event>) {
        let mut model = Self::default();
        for event in events {
            match event {
                Event::Receive(event) => {
                    model.receive.apply(event);
                    model.receive.check();
                }
                Event::Send(event) => {
                    model.send.apply(event);
                    model.send.check();
                }
                Event::Die { reaps } => {
                    model.receive.die(reaps);
                    model.send.die(reaps);
                }
                Event::Exhume => {
                    model.receive.exhume();
                    model.send.exhume();
                }
                Event::Close => {
                    model.receive.close();
                    model.send.close();
                }
            }
        }
        model.receive.check_end();
        model.send.check_end();
    }
}

impl Event {
    /// From two bytes of a script: what, and with what.
    pub(crate) fn from_bytes([kind, detail]: [u8; 2]) -> Self {
        let at = usize::from(detail % 4);
        let odd = detail % 2 == 1;
        let ring = |kind| match kind {
            0..6 => Ring::Attend,
            6..12 => Ring::Finish,
            12..18 => Ring::Reap,
            18..20 => Ring::Void,
            20 => Ring::Fail,
            _ => Ring::Exhausted,
        };
        match kind % 96 {
            kind @ 0..22 => Self::Receive(receive::Event::Ring(ring(kind))),
            22..27 => Self::Receive(receive::Event::Arrive),
            27..32 => Self::Receive(receive::Event::Come {
                room: odd,
                looks: detail / 2 % 3,
                himself: detail >= 128,
            }),
            32..38 => Self::Receive(receive::Event::Poll(at)),
            38..41 => Self::Receive(receive::Event::Drop(at)),
            41 => Self::Receive(receive::Event::Try),
            42 => Self::Receive(receive::Event::Watch),
            43 => Self::Receive(receive::Event::Announce),
            kind @ 44..65 => Self::Send(send::Event::Ring(ring(kind - 44))),
            65..71 => Self::Send(send::Event::Come),
            71..76 => Self::Send(send::Event::Call(at % 3)),
            76..80 => Self::Send(send::Event::Poll(at)),
            80..83 => Self::Send(send::Event::Drop(at)),
            83..86 => Self::Send(send::Event::Read),
            86 => Self::Send(send::Event::Watch),
            87 => Self::Send(send::Event::Announce),
            88..93 => Self::Send(send::Event::GoOn { enough: detail % 8 == 7 }),
            93 => Self::Die { reaps: odd },
            94 => Self::Exhume,
            _ => Self::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> ProptestConfig {
        let schedules = std::env::var("MODEL_SCHEDULES").ok().and_then(|n| n.parse().ok());
        ProptestConfig {
            cases: schedules.unwrap_or(100_000),
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..ProptestConfig::default()
        }
    }

    /// The end of the driver and of the socket are rare: a schedule is about what comes before, too.
    fn bytes() -> impl Strategy<Value = [u8; 2]> {
        (prop_oneof![50 => 0..93u8, 1 => 93..96u8], any::<u8>()).prop_map(<[u8; 2]>::from)
    }

    fn script() -> impl Strategy<Value = Vec<Event>> {
        prop::collection::vec(bytes().prop_map(Event::from_bytes), 0..60)
    }

    proptest! {
        #![proptest_config(config())]

        /// Received messages come once and in order, to whoever is first; sends go out once and in the
        /// order of their first polls; an error is told to one; whoever waits is woken; every room and
        /// payload comes back, also when the driver dies or the socket is closed in the middle.
        #[test]
        fn a_socket_keeps_its_promises_in_any_schedule(
            script in script()
        ) {
            Model::run(script);
        }
    }
}
