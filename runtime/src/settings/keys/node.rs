//! What a node is, and the mesh it belongs to.

use super::{ADDRESS, HOUR, MINUTE, SECOND, Section, field};
use crate::settings::draft::{Held, put_address};
use crate::settings::key::{Field, Key};
use crate::settings::kind::{Kind, count, millis};

pub(super) const MESH: Section = Section {
    name: "mesh",
    what: "What all nodes of the mesh agree on. It belongs in `global.toml`.",
    keys: &[
        Key::new(
            "mesh.cluster",
            Kind::Text { form: "32 hexadecimal digits", example: "000102030405060708090a0b0c0d0e0f" },
            field!(cluster),
            "The mesh's identity, drawn when it was founded. It never changes.",
        )
        .needed(),
        Key::new(
            "mesh.trust_domain",
            Kind::Text { form: "a DNS name in lower case", example: "mesh.example" },
            field!(trust_domain),
            "The SPIFFE trust domain of every certificate of the mesh.",
        )
        .needed(),
        Key::new(
            "mesh.founding.*/*",
            ADDRESS,
            Field {
                get: |_| None,
                set: |draft, node, value| put_address(&mut draft.founding, node, value),
            },
            "The founding nodes, each with the address at which peers dial it. Addresses may change, the list \
             of nodes never does: the homes of all pools follow from it.",
        )
        .needed(),
        Key::new(
            "mesh.max_offset",
            millis(10, MINUTE),
            field!(max_offset),
            "How far the clocks of two nodes may differ: a time further ahead is refused. The same on all nodes.",
        ),
    ],
};

pub(super) const NODES: Section = Section {
    name: "nodes",
    what: "The nodes of a region, each under its name. It belongs in `REGION.toml`.",
    keys: &[
        Key::new(
            "nodes.*.listen",
            ADDRESS,
            field!(listen),
            "The UDP address on which the node answers QUIC.",
        )
        .needed(),
        Key::new(
            "nodes.*.admin",
            ADDRESS,
            field!(admin),
            "The TCP address of its admin HTTP. It asks for no password: keep it away from strangers.",
        )
        .needed(),
        Key::new(
            "nodes.*.data",
            Kind::Text { form: "a folder", example: "/var/lib/rhumb" },
            field!(data),
            "Its data directory. A relative path begins at the settings' folder.",
        )
        .needed(),
        Key::new(
            "nodes.*.identity",
            Kind::Text { form: "a folder", example: "/etc/rhumb/identity" },
            field!(identity),
            "The folder with its certificate, its key and the roots it trusts. A relative path begins at the \
             settings' folder.",
        )
        .needed(),
        Key::new(
            "nodes.*.dial.*/*",
            ADDRESS,
            Field { get: |_| None, set: |draft, node, value| put_address(&mut draft.dial, node, value) },
            "Where this node dials a peer, instead of at the address in `mesh.founding`.",
        ),
    ],
};

pub(super) const IDENTITY: Section = Section {
    name: "identity",
    what: "Where a node's certificate comes from.",
    keys: &[
        Key::new(
            "identity.source",
            Kind::Choice(&["files", "workload-api"]),
            field!(identities.source),
            "`files`: those in `nodes.*.identity`. `workload-api`: a SPIFFE Workload API, such as a SPIRE agent's; the \
             folder is not read then.",
        ),
        Key::new(
            "identity.socket",
            Kind::Text { form: "a Unix socket", example: "/run/spire/agent.sock" },
            field!(identities.socket),
            "Where the Workload API is, where that is the source. A relative path begins at the settings' folder.",
        ),
        Key::new(
            "identity.revocations",
            Kind::Choice(&["lenient", "strict"]),
            field!(identities.revocations),
            "What it means that an authority's list of revocations is missing or out of date. `lenient`: what is in force \
             is revoked, and nothing more. `strict`: nobody of that authority is believed, this node's own certificate \
             included, so lists must be signed in time (`rhumb ca sign-list`).",
        ),
    ],
};

pub(super) const POLICY: Section = Section {
    name: "policy",
    what: "The residency policy and who may sign it.",
    keys: &[
        Key::new(
            "policy.file",
            Kind::Text { form: "a file", example: "policy.toml" },
            field!(policy_file),
            "The residency policy; its signature lies beside it as `FILE.sig`. A relative path begins at the \
             settings' folder. Without a policy all labelled data is refused. A reload reads the file anew and \
             takes no older version.",
        )
        .running(),
        Key::new(
            "policy.keys",
            Kind::Texts { form: "public keys of 64 hexadecimal digits" },
            field!(policy_keys),
            "The operators that may sign the policy. More than one while a key rotates.",
        )
        .running(),
    ],
};

pub(super) const LOG: Section = Section {
    name: "log",
    what: "What a node logs, on standard error.",
    keys: &[
        Key::new(
            "log.filter",
            Kind::Text { form: "a tracing filter", example: "rhumb=debug,warn" },
            field!(log.filter),
            "What is logged: a level, or levels by target. A level alone leaves out what consensus says of each election (`openraft=info` shows it).",
        )
        .running(),
        Key::new(
            "log.format",
            Kind::Choice(&["text", "json"]),
            field!(log.format),
            "Lines for people, or one JSON object a line.",
        )
        .running(),
        Key::new(
            "log.burst",
            count(1, 1_000_000, "lines"),
            field!(log.burst),
            "Lines that one place in the code may write within `log.window`. Further ones are counted, and told \
             as one line when the window ends; of errors the 1st, 2nd, 4th, 8th … further one is written too.",
        )
        .running(),
        Key::new(
            "log.window",
            millis(SECOND, HOUR),
            field!(log.window),
            "How long lines of one place in the code are counted together.",
        )
        .running(),
        Key::new(
            "log.redact",
            Kind::Texts { form: "words in lower case" },
            field!(log.redact),
            "Fields with one of these words in their name are shown as `[redacted]`, in lines and in spans, \
             besides those with `secret`, `password`, `passphrase`, `token`, `key`, `pem`, `credential`, \
             `authorization`, `cookie`, `subject`, `customer`, `person`, `user`, `email` or `phone`.",
        )
        .running(),
    ],
};

pub(super) const CLOCK: Section = Section {
    name: "clock",
    what: "The node's clock.",
    keys: &[
        Key::new(
            "clock.catch_up",
            millis(0, HOUR),
            field!(catch_up),
            "How long a starting node waits for a wall clock that lies behind its last life, before it refuses \
             to start.",
        ),
        Key::new(
            "clock.sources",
            Kind::Texts { form: "NTP servers, each HOST:PORT" },
            field!(time.sources),
            "Sources of time that the node asks itself, 16 at most. True time is where all but a minority of them agree (of \
             three one may be wrong, of five two); when true time may be further from the wall clock than two fifths of \
             `mesh.max_offset`, strong paths are refused, also until enough of them were heard. None: only other nodes' \
             clocks are compared. Servers that smear leap seconds must not stand here beside others.",
        ),
        Key::new(
            "clock.chrony",
            ADDRESS,
            field!(time.chrony),
            "Where the chrony of this machine answers `chronyc`. It is asked, where there is one, how wrong the clock may \
             be; that may warn and widen, and never vouches.",
        ),
    ],
};

pub(super) const SUPERVISOR: Section = Section {
    name: "supervisor",
    what: "The node's process.",
    keys: &[
        Key::new(
            "supervisor.stop_within",
            millis(SECOND, 10 * MINUTE),
            field!(stop_within),
            "How long an ordered stop may take. `rhumb dev` kills its nodes after 12s.",
        )
        .running(),
        Key::new(
            "supervisor.slow_sync",
            millis(10, MINUTE),
            field!(watch.slow_sync),
            "A write or sync of the hot store that lasts so long is told in the log.",
        ),
        Key::new(
            "supervisor.stuck_sync",
            millis(SECOND, 10 * MINUTE),
            field!(watch.stuck_sync),
            "One that lasts so long is stuck: the node is not ready.",
        ),
        Key::new(
            "supervisor.stuck_loop",
            millis(2 * SECOND, 10 * MINUTE),
            field!(watch.stuck_loop),
            "An event loop (the runtime's, an arbiter's) that gives no sign for so long is stuck: the node is not \
             ready. Half of it is told in the log.",
        ),
        Key::new(
            "supervisor.watchdog",
            millis(SECOND, HOUR),
            field!(watch.end_after),
            "When something has been stuck for so long, the process aborts (SIGABRT), to be started again.",
        ),
        Key::new(
            "supervisor.crashes",
            count(1, 64, "ends"),
            field!(crash.crashes),
            "So many abnormal ends within `supervisor.crash_window` are too many: the node waits before it starts.",
        ),
        Key::new(
            "supervisor.crash_window",
            millis(SECOND, 24 * HOUR),
            field!(crash.window),
            "Abnormal ends that lie further back are forgotten. A stop that was asked for forgets them all.",
        ),
        Key::new(
            "supervisor.crash_wait",
            millis(SECOND, HOUR),
            field!(crash.longest),
            "The longest wait before a start. It begins at 1s and doubles with each further end.",
        ),
    ],
};
