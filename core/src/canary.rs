//! Known bugs, put back on purpose to show that the tests catch them.
//!
//! A canary is asked for where the bug would be: `if canary::sings(Canary::ReceiverAdds) { … }`.
//! Without the feature `canaries`, which only the test rooms ask for, [`sings`] is the constant
//! `false` and the branch is compiled out. With it, one canary may be let out for the current thread, or
//! for the whole process: the latter for tests of the real program.

macro_rules! canaries {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The known bugs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Canary { $($(#[$doc])* $variant,)* }

        impl Canary {
            /// Every canary.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name on a command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The canary of a name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|c| c.name() == name)
            }
        }
    };
}

canaries! {
    /// A grant is added to what was accepted instead of merged by maximum.
    ReceiverAdds = "receiver-adds",
    /// A grant overwrites what was accepted, so an older one takes rights back.
    ReceiverOverwrites = "receiver-overwrites",
    /// Effects leave before what they depend on was even handed to storage.
    SendBeforePersist = "send-before-persist",
    /// Effects leave after the write but before its sync.
    SendBeforeSync = "send-before-sync",
    /// A donor grants what is asked without looking at what it has.
    GrantWithoutCheck = "grant-without-check",
    /// A donor takes back a grant that was not acknowledged.
    DonorTakesBack = "donor-takes-back",
    /// Held units are still counted as available.
    HoldsNotSubtracted = "holds-not-subtracted",
    /// An expired hold gives its units back twice.
    DoubleCreditOnExpiry = "double-credit-on-expiry",
    /// Shares are rounded down, so units vanish.
    FloorDivision = "floor-division",
    /// Storage says durable without a sync.
    NoSync = "no-sync",
    /// Creating a pool again mints its units again.
    MintTwice = "mint-twice",
    /// An owner that cannot be reached is reported as sold out.
    SoldOutForUnreachable = "sold-out-for-unreachable",
    /// A key older than the retention is run again.
    ExpiredKeyRunsAgain = "expired-key-runs-again",
    /// A donor that gives rights unasked does not look at what it has.
    PushWithoutCheck = "push-without-check",
    /// Rows that were read while they changed are added up as if they had stood so at one time.
    TornReadIsExact = "torn-read-is-exact",
    /// A reconciliation does not hear its second reading, and so never comes to a result.
    ReconcileBlind = "reconcile-blind",
    /// A node on a restored disk spends without asking its peers.
    RestoredDiskSpends = "restored-disk-spends",
    /// A node on a restored disk says what it had of another one as if it were proven.
    RestoredVouches = "restored-vouches",
    /// What is sold on debt does not use up the right to.
    DebtForgotten = "debt-forgotten",
    /// A return that is asked for again is booked again.
    ReturnTwice = "return-twice",
    /// A sale that an operator's attestation has counted is returned after it.
    ReturnAfterAttest = "return-after-attest",
    /// The holder of the reserve sells it to its own customers.
    ReserveSells = "reserve-sells",
    /// What a customer has is not looked at.
    CustomerLimitForgotten = "customer-limit-forgotten",
    /// A hold is settled for whoever can guess its number.
    SecretNotAsked = "secret-not-asked",
    /// A sale that is forgotten no longer counts against its customer's limit.
    ForgottenSaleFrees = "forgotten-sale-frees",
    /// The first unit that its holder grants uses the whole reserve up.
    ReserveCountedAsDrawn = "reserve-counted-as-drawn",
    /// A hold stands on debt while a node that can be reached has units to spare.
    DebtBeforeUnits = "debt-before-units",
    /// A moving average does not fall while nobody asks.
    EwmaNeverFalls = "ewma-never-falls",
    /// A season is read one slot too late.
    SeasonShifted = "season-shifted",
    /// One key that is asked again is demand again.
    RetryIsDemand = "retry-is-demand",
    /// What is refused counts as demand.
    RefusedIsDemand = "refused-is-demand",
    /// Who only looks ahead asks nodes that have no more cover than itself.
    PullFromEquals = "pull-from-equals",
    /// A donor gives what is below its high-water mark.
    HybridBelowMark = "hybrid-below-mark",
    /// A pool leaves its tail at the floor at which it entered it.
    TailFlips = "tail-flips",
    /// Rights that arrived unasked are counted as asked for as well.
    MovesMiscounted = "moves-miscounted",
    /// A risk is that of so many units being asked for, rather than of more.
    AdviseOffByOne = "advise-off-by-one",
    /// A checkpoint is signed before its entries are durable.
    SignBeforeDurable = "sign-before-durable",
    /// A log witness cosigns before it has durably noted what.
    CosignBeforePersist = "cosign-before-persist",
    /// A log witness does not look whether a checkpoint continues the last one.
    WitnessSkipsProof = "witness-skips-proof",
    /// The audit log prunes what its log witnesses have not cosigned.
    PruneUncosigned = "prune-uncosigned",
    /// The hashes of what was pruned are not kept beside the mark.
    PruneForgetsEdge = "prune-forgets-edge",
    /// Erasing a subject leaves the wrapping key that older copies of its key are wrapped under.
    OldKeyStays = "old-key-stays",
    /// Subjects' keys are not wrapped again before the old wrapping key is destroyed.
    KeysNotRewrapped = "keys-not-rewrapped",
    /// All records have one salt.
    SaltReused = "salt-reused",
    /// An answer under a key is given before it is durable.
    KeyAnsweredBeforeDurable = "key-answered-before-durable",
    /// Another message under a key gets the first one's answer.
    OtherBodyAnswered = "other-body-answered",
    /// A key that runs is run again by whoever asks meanwhile.
    RunningKeyRunsAgain = "running-key-runs-again",
    /// A letter is said to be taken before it is durable.
    LetterTakenBeforeDurable = "letter-taken-before-durable",
    /// A new life of a node names its letters as the first one did.
    LetterNamesReused = "letter-names-reused",
    /// A letter runs although its forerunner is not settled.
    LetterOutOfOrder = "letter-out-of-order",
    /// That a letter is settled is not written down.
    NoteForgotten = "note-forgotten",
    /// That a letter is settled is written in another batch than what its handler wrote.
    NoteApartFromEffect = "note-apart-from-effect",
    /// What cannot be delivered is gone.
    DeadLetterVanishes = "dead-letter-vanishes",
    /// Of several sources' times the one that most have in common is taken, not what a majority may mean.
    LargestAgreement = "largest-agreement",
    /// A majority of the sources that were heard is enough, however few that are.
    MinorityBelieved = "minority-believed",
    /// What is known of true time does not grow less certain between samples.
    BoundWithoutDrift = "bound-without-drift",
    /// A source's time is taken to be exactly half a round trip old.
    RoundTripForgotten = "round-trip-forgotten",
    /// A new life hands out times before the wall clock has passed the last one's ceiling.
    CeilingIgnored = "ceiling-ignored",
    /// A clock is reset before the times of its old epoch have passed.
    ResetBeforeBound = "reset-before-bound",
    /// Versions are collected that an active reader may still ask for.
    GcAboveWatermark = "gc-above-watermark",
    /// Where nobody reads, exports or lags, everything is collected.
    GcOfEmptySets = "gc-of-empty-sets",
    /// A deletion is collected before what it deletes.
    DeletionBeforeDeleted = "deletion-before-deleted",
    /// A replica collects what no threshold that it has applied lets it.
    GcAboveThreshold = "gc-above-threshold",
    /// A follower that is sent the rows of a state goes on showing keys whose deletion was collected at the sender.
    CollectedComesBack = "collected-comes-back",
    /// Whoever is told of a new leader stands for election itself.
    LeadGoesToAll = "lead-goes-to-all",
    /// Rows of keys that a state has no more, which was sent, are left where they are.
    LostKeysStay = "lost-keys-stay",
    /// A replica without a vote takes the lease.
    LeaseWithoutVote = "lease-without-vote",
    /// A follower that rests does so whatever it hears from then on.
    RestsForGood = "rests-for-good",
    /// A replica that is to learn is taken into consensus with a vote.
    LearnerVotes = "learner-votes",
    /// Who passes entries on to a learner passes on what stands in their places.
    FedEntriesUnchecked = "fed-entries-unchecked",
    /// Who passes entries on to a learner says that it has them.
    FeederAnswers = "feeder-answers",
    /// What replicas are at different commands is compared.
    CompareAcrossIndexes = "compare-across-indexes",
    /// The hash of a replica has its keys and times, and no values.
    CompareSkipsValues = "compare-skips-values",
    /// A replica that is not to be believed answers reads.
    QuarantinedReads = "quarantined-reads",
    /// A replica serves strong reads because it once took the lease.
    LeaseNotAsked = "lease-not-asked",
    /// A leaseholder serves until the end of its support by its own clock, without a margin for others'.
    StasisForgotten = "stasis-forgotten",
    /// What is closed beside the log counts before the log has come so far.
    ClosedBeforeApply = "closed-before-apply",
    /// The start of a lease that is proposed counts as closed.
    LeaseStartIsClosed = "lease-start-is-closed",
    /// The right-hand range of a split begins with nothing closed.
    SplitForgetsClosed = "split-forgets-closed",
    /// What a client has seen before is not asked.
    TokenIgnored = "token-ignored",
    /// A read as of a time that is closed is one as of what is closed, and says otherwise.
    AsOfClosed = "as-of-closed",
    /// The permit that let a read begin is not looked at again when its rows have been read, however long that took.
    LateAnswer = "late-answer",
    /// The bound that let a read begin is not looked at again when its rows have been read, however long that took.
    LateBound = "late-bound",
    /// A command that a later one of its proposer has overtaken takes effect.
    OvertakenApplies = "overtaken-applies",
    /// A vote is answered before it is durable.
    VoteNotSynced = "vote-not-synced",
    /// Entries are acknowledged before they are durable.
    EntriesNotSynced = "entries-not-synced",
    /// An epoch is given away before those who acted under the last one have stopped.
    ActsBeforeFence = "acts-before-fence",
    /// A node is lost because one observer does not hear it.
    OneObserverConfirms = "one-observer-confirms",
    /// What was read of the fences counts from when the answer came, not from when it was asked for.
    PermitFromAnswer = "permit-from-answer",
    /// A node whose hybrid time stands still at its ceiling acts as if no time passed.
    StandingClockActs = "standing-clock-acts",
    /// A leaseholder writes the newest format that its build knows, whatever the cluster version is.
    FormatBeforeVersion = "format-before-version",
    /// The cluster version is raised by what those say that were heard.
    VersionRaisedUnheard = "version-raised-unheard",
    /// A node begins what it may not any more, by the fences as it has read them last.
    ActsWithoutPermit = "acts-without-permit",
    /// Whether a node may act for an actor is looked at when an instance is made, and not at each message.
    OldOwnerActs = "old-owner-acts",
    /// The epoch of an instance is that of its node's fence, and that of the next owner's is lower.
    EpochOfOneNode = "epoch-of-one-node",
    /// Rows of a ledger in a range are written whatever its head says.
    HeadNotAsked = "head-not-asked",
    /// What a ledger in a range has done is answered before the range has it.
    AnsweredBeforeRange = "answered-before-range",
    /// Who was succeeded as a ledger's writer goes on refusing by what it knew.
    SucceededAnswers = "succeeded-answers",
    /// What a batch writes before the write whose condition does not hold stays written.
    BatchHalfWritten = "batch-half-written",
    /// A batch is written in two.
    BatchInTwo = "batch-in-two",
}

impl Canary {
    /// Those of the audit log, which has a simulated world of its own.
    pub const OF_THE_AUDIT_LOG: &'static [Self] =
        &[Self::SignBeforeDurable, Self::CosignBeforePersist, Self::WitnessSkipsProof, Self::SaltReused];

    /// Those of its pruning, which is run in it with many more entries.
    pub const OF_PRUNING: &'static [Self] = &[Self::PruneUncosigned, Self::PruneForgetsEdge];

    /// Those of the audit log's keys, which have one of their own too.
    pub const OF_THE_AUDIT_KEYS: &'static [Self] = &[Self::OldKeyStays, Self::KeysNotRewrapped];

    /// Those of the clock keeper, which has one too.
    pub const OF_THE_CLOCK: &'static [Self] = &[
        Self::LargestAgreement,
        Self::MinorityBelieved,
        Self::BoundWithoutDrift,
        Self::RoundTripForgotten,
        Self::CeilingIgnored,
        Self::ResetBeforeBound,
    ];

    /// Those of the versions of keys, which have a model to be compared with.
    pub const OF_THE_VERSIONS: &'static [Self] =
        &[Self::GcAboveWatermark, Self::GcOfEmptySets, Self::DeletionBeforeDeleted];

    /// Those of ranges, which have a simulated world too.
    pub const OF_THE_RANGES: &'static [Self] = &[
        Self::LeaseNotAsked,
        Self::StasisForgotten,
        Self::ClosedBeforeApply,
        Self::LeaseStartIsClosed,
        Self::SplitForgetsClosed,
        Self::TokenIgnored,
        Self::AsOfClosed,
        Self::OvertakenApplies,
        Self::GcAboveWatermark,
        Self::GcOfEmptySets,
        Self::GcAboveThreshold,
        Self::BatchHalfWritten,
    ];

    /// Those of consensus, under which they run with real openraft.
    pub const OF_CONSENSUS: &'static [Self] = &[
        Self::VoteNotSynced,
        Self::EntriesNotSynced,
        Self::CollectedComesBack,
        Self::LeadGoesToAll,
        Self::LeaseWithoutVote,
        Self::RestsForGood,
        Self::LearnerVotes,
        Self::FeederAnswers,
        Self::FormatBeforeVersion,
        Self::VersionRaisedUnheard,
        Self::BatchInTwo,
        Self::LateBound,
    ];

    /// Those of the comparison of replicas, which have stories of their own (`actors/src/ranges/host/tests/comparing.rs`).
    pub const OF_THE_COMPARISON: &'static [Self] =
        &[Self::CompareAcrossIndexes, Self::CompareSkipsValues, Self::QuarantinedReads];

    /// Those of failover, which has one too.
    pub const OF_FAILOVER: &'static [Self] = &[
        Self::ActsBeforeFence,
        Self::OneObserverConfirms,
        Self::PermitFromAnswer,
        Self::StandingClockActs,
        Self::ActsWithoutPermit,
        Self::OldOwnerActs,
        Self::EpochOfOneNode,
    ];

    /// Those of ledgers in ranges, which have one too.
    pub const OF_SUCCESSION: &'static [Self] =
        &[Self::HeadNotAsked, Self::AnsweredBeforeRange, Self::SucceededAnswers];

    /// Those of delivery, which has one too. All others are the escrow's.
    pub const OF_DELIVERY: &'static [Self] = &[
        Self::KeyAnsweredBeforeDurable,
        Self::OtherBodyAnswered,
        Self::RunningKeyRunsAgain,
        Self::LetterTakenBeforeDurable,
        Self::LetterNamesReused,
        Self::LetterOutOfOrder,
        Self::NoteForgotten,
        Self::NoteApartFromEffect,
        Self::DeadLetterVanishes,
    ];
}

#[cfg(feature = "canaries")]
mod cage {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use super::Canary;

    thread_local! {
        static OUT: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    static EVERYWHERE: OnceLock<Canary> = OnceLock::new();

    /// Whether this bug is switched on, for this thread or for the process.
    #[must_use]
    pub fn sings(canary: Canary) -> bool {
        OUT.with(|out| out.get() == Some(canary)) || EVERYWHERE.get() == Some(&canary)
    }

    /// Lets one canary out (or none) for the current thread.
    pub fn let_out(canary: Option<Canary>) {
        OUT.with(|out| out.set(canary));
    }

    /// Lets one canary out in all threads of this process, for good. Whether it is out.
    #[must_use]
    pub fn let_out_everywhere(canary: Canary) -> bool {
        *EVERYWHERE.get_or_init(|| canary) == canary
    }
}

#[cfg(feature = "canaries")]
pub use cage::{let_out, let_out_everywhere, sings};

/// Whether this bug is switched on: never, in a build without the feature `canaries`.
#[cfg(not(feature = "canaries"))]
#[inline(always)]
#[must_use]
pub const fn sings(_: Canary) -> bool {
    false
}

/// Lets no canary out: there is none in a build without the feature `canaries`.
#[cfg(not(feature = "canaries"))]
#[must_use]
pub const fn let_out_everywhere(_: Canary) -> bool {
    false
}
