//! Traces: where they go, and which.

use super::{MINUTE, Section, field};
use crate::settings::draft::Held;
use crate::settings::key::{Field, Key};
use crate::settings::kind::{Kind, count, millis};

pub(super) const TELEMETRY: Section = Section {
    name: "telemetry",
    what: "Traces. A span names classes, messages and nodes, never what is in a message; all the same the \
           collector must stand in the node's own region.",
    keys: &[
        Key::new(
            "telemetry.endpoint",
            Kind::Text {
                form: "a collector's http://HOST:PORT, or a file's file:///PATH",
                example: "http://127.0.0.1:4317",
            },
            field!(telemetry.endpoint),
            "Where spans go: to an OTLP collector beside the node, or as lines of OTLP JSON to a file. Without it \
             there are none.",
        ),
        Key::new(
            "telemetry.protocol",
            Kind::Choice(&["grpc", "http"]),
            field!(telemetry.protocol),
            "What the collector is spoken to in: OTLP over gRPC, or over HTTP in protobuf.",
        ),
        Key::new(
            "telemetry.sample",
            Kind::Share,
            field!(telemetry.share),
            "The share of the traces beginning at this node that is kept. One that began elsewhere is kept as it was \
             decided there; restarts, changes of certificate and of standing are always kept.",
        ),
        Key::new(
            "telemetry.forced",
            count(0, 1_000_000, "traces a second"),
            field!(telemetry.forced),
            "How many traces a second programs outside the mesh may have this node keep, besides those of its own share \
             (a command's -v, a client that samples). Those beyond are not kept from here on, and are counted.",
        ),
        Key::new(
            "telemetry.service",
            Kind::Text { form: "a name", example: "rhumb" },
            field!(telemetry.service),
            "The name of the service that the spans are of.",
        ),
        Key::new(
            "telemetry.headers",
            Kind::Texts { form: "NAME=VALUE" },
            field!(telemetry.headers),
            "Headers that the collector asks for.",
        )
        .secret(),
        Key::new(
            "telemetry.queue",
            count(64, 1_000_000, "spans"),
            field!(telemetry.queue),
            "How many finished spans may wait for the collector. One that finds no room is dropped and counted.",
        ),
        Key::new(
            "telemetry.delay",
            millis(10, MINUTE),
            field!(telemetry.delay),
            "How long a span may wait for others to go with.",
        ),
        Key::new(
            "telemetry.timeout",
            millis(100, MINUTE),
            field!(telemetry.timeout),
            "How long the collector may take for what is sent at once, and the stopping node for what is left.",
        ),
    ],
};
