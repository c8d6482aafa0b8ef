#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokio_seqpacket::fuzzing::address(data));
