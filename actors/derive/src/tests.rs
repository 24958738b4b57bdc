//! What the macros say where a declaration is wrong, and what they write where it is right.

use proc_macro2::TokenStream;
use quote::quote;

use crate::{actor, fields, grows, protocol, remote, wire};

fn refused(expanded: syn::Result<TokenStream>) -> String {
    expanded.map(|tokens| tokens.to_string()).expect_err("must not compile").to_string()
}

/// What `#[remote(..)]` says of a message with these arguments.
fn message(args: TokenStream) -> String {
    refused(remote::expand(
        args,
        quote!(
            pub struct Add {
                pub sku: String,
                pub class: DataClass,
            }
        ),
    ))
}

/// What `#[remote(..)]` says of these fields.
fn with_fields(body: TokenStream) -> String {
    refused(remote::expand(right(), quote!(pub struct Add { #body })))
}

fn right() -> TokenStream {
    quote!(name = "cart.Add", class = "inventory", reply = Result<u32, CartError>)
}

fn on(item: TokenStream) -> String {
    refused(remote::expand(right(), item))
}

fn actor_with(args: TokenStream) -> String {
    refused(actor::expand(args, quote!(impl Actor for Cart { type Context = Context<Self>; })))
}

fn laid_out(item: TokenStream) -> String {
    refused(wire::expand(&syn::parse2(item).expect("an item")))
}

#[test]
fn a_message_without_a_class_does_not_compile() {
    assert_eq!(
        message(quote!(name = "cart.Add", reply = u32)),
        "#[remote] lacks `class`: e.g. `#[remote(name = \"cart.Add\", class = \"inventory\", reply = Result<u32, CartError>)]`"
    );
}

#[test]
fn all_that_a_message_lacks_is_said_at_once() {
    assert!(message(quote!()).starts_with("#[remote] lacks `name`, `class` and `reply`: e.g."));
    assert!(
        message(quote!(name = "cart.Add", class = "control")).starts_with("#[remote] lacks `reply`: e.g.")
    );
    assert!(message(quote!(class = "control", reply = ())).starts_with("#[remote] lacks `name`: e.g."));
}

#[test]
fn a_class_that_can_not_be_one_is_refused() {
    for class in ["", "Inventory", "in_ventory", "-a", "a-", &"a".repeat(64)] {
        let said = message(quote!(name = "cart.Add", class = #class, reply = u32));
        assert!(
            said.starts_with(&format!("{class:?} is not a data class: use 1 to 63 characters")),
            "{said}"
        );
    }
    let said = "`class` is a class (`class = \"inventory\"`), a field of type DataClass that says it (`class = by(FIELD)`), or `class = looked_up` where the receiver knows it";
    for class in [quote!(inventory), quote!(by), quote!(by()), quote!(by(a, b)), quote!(7)] {
        assert_eq!(message(quote!(name = "cart.Add", class = #class, reply = u32)), said);
    }
    assert_eq!(
        message(quote!(name = "cart.Add", class = by(klass), reply = u32)),
        "`Add` has no field `klass`; it has `sku` and `class`"
    );
}

#[test]
fn a_name_that_can_not_be_one_is_refused() {
    for name in ["", "7up", "cart/Add", "cart Add", "wägen"] {
        let said = message(quote!(name = #name, class = "control", reply = u32));
        assert!(said.starts_with(&format!("{name:?} is not a name on the wire: use 1 to 120")), "{said}");
    }
}

#[test]
fn a_duration_needs_a_number_and_a_unit() {
    for text in
        ["", "5", "ms", "0s", "5 s", "1.5s", "-1s", "5h", "99999999999999999999s", "18446744073709551615m"]
    {
        assert_eq!(
            message(quote!(name = "cart.Add", class = "control", reply = u32, deadline = #text)),
            format!(
                "{text:?} is not a duration: a number above 0 and its unit, e.g. \"500ms\", \"5s\", \"2m\""
            )
        );
    }
}

#[test]
fn an_unknown_key_is_told_which_there_are() {
    assert_eq!(
        message(quote!(name = "cart.Add", since = 2)),
        "#[remote] has no `since`; it knows `name`, `class`, `reply`, `reply_class`, `idempotent`, `deadline`, `key`, `audience`, `coalesce`, `retried`, `priority`, `requires` and `crate`"
    );
    assert_eq!(
        actor_with(quote!(named = "cart")),
        "#[remote_actor] has no `named`; it knows `name`, `accepts`, `serves`, `class`, `mailbox`, `overflow` and `crate`"
    );
    let said = refused(grows::expand(
        quote!(name = "x"),
        quote!(
            struct Line {
                sku: String,
            }
        ),
    ));
    assert_eq!(said, "#[grows] has no `name`; it knows `crate`");
    assert_eq!(
        with_fields(quote!(#[wire(layout = "x")] id: Uuid)),
        "#[wire] has no `layout` here; it knows `opaque`"
    );
}

#[test]
fn a_key_with_a_wrong_value_is_shown_a_right_one() {
    assert_eq!(message(quote!(name = cart)), "this is no value of `name`; e.g. `name = \"cart.Add\"`");
    assert_eq!(message(quote!(name)), "`name` needs a value, e.g. `name = \"cart.Add\"`");
    assert_eq!(message(quote!(name = "a", name = "b")), "`name` is given twice");
    assert_eq!(
        message(quote!(audience = "everybody")),
        "\"everybody\" is no audience; choose among \"everyone\", \"operators\", \"nodes\""
    );
    assert_eq!(
        message(quote!(name = "a", class = "control", reply = u32, key = id)),
        "`Add` has no field `id`; it has `sku` and `class`"
    );
    assert_eq!(
        message(quote!(name = "a", class = "control", reply = u32, coalesce = id)),
        "`Add` has no field `id`; it has `sku` and `class`"
    );
}

#[test]
fn only_a_struct_with_named_fields_is_a_message() {
    assert_eq!(
        on(quote!(
            enum Edit {
                Add,
                Remove,
            }
        )),
        "an enum cannot grow in its fields: give `#[derive(Wire)]` to the enum `Edit`, and #[remote] to a struct that has it in a field"
    );
    assert_eq!(
        on(quote!(
            struct Add(String);
        )),
        "#[remote] needs a struct with named fields: the names are part of the layout"
    );
    assert_eq!(
        on(quote!(
            struct Add<T> {
                item: T,
            }
        )),
        "#[remote] stands on a struct without parameters: one name is one layout"
    );
    assert_eq!(
        on(quote!(
            fn add() {}
        )),
        "#[remote] stands on a struct"
    );
    assert!(
        remote::expand(
            right(),
            quote!(
                struct Checkout;
            )
        )
        .is_ok()
    );
    assert!(
        remote::expand(
            right(),
            quote!(
                struct Checkout {}
            )
        )
        .is_ok()
    );
}

#[test]
fn fields_of_the_first_version_stand_before_those_that_came_later() {
    assert_eq!(
        with_fields(quote!(#[since(2)] note: Option<String>, sku: String)),
        "`sku` is of the first version and stands behind fields that came later: put it before them, or say which version brought it, e.g. `#[since(2)]`"
    );
    assert_eq!(
        with_fields(quote!(#[since(3)] note: String, #[since(2)] gift: bool)),
        "`gift` came with version 2 and stands behind a field of version 3: later fields stand in the order in which they came, and never move"
    );
}

#[test]
fn since_says_a_version_from_two_on() {
    let said = "say which version brought it, from 2 (what the first version has needs no `since`): `#[since(2)]`, or `#[since(2, may_drop)]` if a build without it may go on as if it were not there";
    for since in [
        quote!(#[since]),
        quote!(#[since()]),
        quote!(#[since = 2]),
        quote!(#[since(1)]),
        quote!(#[since(70000)]),
        quote!(#[since("2")]),
        quote!(#[since(2, drop)]),
        quote!(#[since(2,)]),
    ] {
        assert_eq!(with_fields(quote!(#since note: String)), said, "{since}");
    }
    assert_eq!(with_fields(quote!(#[since(2)] #[since(3)] a: String)), "`since` is given twice");
}

#[test]
fn what_would_lay_a_message_out_otherwise_has_no_place_in_it() {
    assert_eq!(
        with_fields(quote!(#[serde(skip)] a: String)),
        "#[remote] lays the struct out itself: serde's attributes have no place in it"
    );
    assert_eq!(
        with_fields(quote!(#[cfg(unix)] a: String)),
        "a layout is the same in every build: no `cfg` in it"
    );
    assert_eq!(
        on(quote!(
            #[derive(Clone, serde::Serialize)]
            struct Add {}
        )),
        "#[remote] writes `Serialize` itself: leave it out of the derive"
    );
}

#[test]
fn an_actor_says_its_name_its_class_and_what_it_accepts() {
    assert_eq!(
        actor_with(quote!()),
        "#[remote_actor] lacks `name`, `class` and `accepts`: e.g. `#[remote_actor(name = \"cart\", class = \"inventory\", accepts(Add, Remove))]`"
    );
    assert_eq!(
        actor_with(quote!(serves = Carts, name = "cart")),
        "the protocol says the name, the class and what is accepted: leave `name`, `class` and `accepts` out, or `serves`"
    );
    assert_eq!(actor_with(quote!(accepts())), "`accepts` is empty: e.g. `accepts(Add, Remove)`");
    assert_eq!(actor_with(quote!(accepts = Add)), "`accepts` is a list: `accepts(Add, Remove)`");
    assert_eq!(actor_with(quote!(accepts(Add, Remove, Add))), "`Add` is listed twice");
    assert_eq!(
        actor_with(quote!(mailbox = 0)),
        "a mailbox has room for one message at least, e.g. `mailbox = 1024`"
    );
    assert_eq!(
        actor_with(quote!(overflow = "block")),
        "\"block\" is no overflow policy; choose among \"refuse\", \"drop_oldest\", \"coalesce\""
    );
}

#[test]
fn an_actor_is_declared_on_its_impl_of_actor() {
    let args = || quote!(name = "cart", class = "inventory", accepts(Add));
    for item in [
        quote!(
            struct Cart;
        ),
        quote!(impl Cart {}),
        quote!(impl Handler<Add> for Cart {}),
    ] {
        let said = refused(actor::expand(args(), item));
        assert_eq!(said, "#[remote_actor] stands on `impl Actor for …`");
    }
    let said = refused(actor::expand(
        args(),
        quote!(
            impl<T> Actor for Cart<T> {}
        ),
    ));
    assert_eq!(said, "#[remote_actor] stands on an actor without parameters: one name is one kind of actor");
}

#[test]
fn a_protocol_has_a_name_a_class_and_messages() {
    let how = "a protocol is `pub Carts = \"cart\", class \"inventory\": Add, Remove;`";
    for wrong in [
        quote!(),
        quote!(pub Carts),
        quote!(Carts = "cart": Add;),
        quote!(Carts = "cart", class "inventory";),
        quote!(Carts = "cart", class "inventory":;),
        quote!(Carts = "cart", class = "inventory": Add;),
        quote!(Carts = "cart", class "inventory": Add),
        quote!(Carts = "cart", residence = "inventory": Add;),
    ] {
        let said = refused(protocol::expand(wrong.clone()));
        assert!(said.ends_with(how), "{wrong}: {said}");
    }
    let said = refused(protocol::expand(quote!(Carts = "cart", class "Inventory": Add;)));
    assert!(said.starts_with("\"Inventory\" is not a data class"), "{said}");
    let said = refused(protocol::expand(quote!(Carts = "cart", class "a": Add, Add;)));
    assert_eq!(said, "`Add` is listed twice");
}

#[test]
fn a_fixed_type_does_not_grow_in_its_fields() {
    let said = "only a growing struct grows in its fields: give the struct `#[grows]` (or `#[remote]`) instead of the derives; `#[since]` in an enum stands on variants";
    assert_eq!(
        laid_out(quote!(
            struct Line {
                #[since(2)]
                note: String,
            }
        )),
        said
    );
    assert_eq!(
        laid_out(quote!(
            enum Edit {
                Add {
                    #[since(2)]
                    note: String,
                },
            }
        )),
        said
    );
}

#[test]
fn variants_are_added_behind_the_others() {
    assert_eq!(
        laid_out(quote!(
            enum Edit {
                #[since(2)]
                Clear,
                Add,
            }
        )),
        "`Add` stands behind variants that came later: put it before them, or say which version brought it, e.g. `#[since(2)]`"
    );
    assert_eq!(
        laid_out(quote!(
            enum Edit {
                #[since(3)]
                Clear,
                #[since(2)]
                Add,
            }
        )),
        "`Add` came before the variant that it stands behind: later variants stand in the order in which they came"
    );
    assert_eq!(
        laid_out(quote!(
            enum Edit {
                #[since(2, may_drop)]
                Clear,
            }
        )),
        "a variant is all that its value says: it cannot be dropped"
    );
}

#[test]
fn a_layout_that_serde_was_told_to_change_must_be_said() {
    for key in [quote!(skip), quote!(with = "a"), quote!(flatten), quote!(skip_serializing_if = "a")] {
        let said = laid_out(quote!(
            struct Line {
                #[serde(#key)]
                note: String,
            }
        ));
        assert!(said.contains("changes what the codec writes: say which layout that is"), "{said}");
    }
    let said = laid_out(quote!(
        #[serde(try_from = "String")]
        struct Name(String);
    ));
    assert!(said.starts_with("`try_from` changes what the codec writes: say which layout that is"), "{said}");
    let said = laid_out(quote!(
        enum Edit {
            #[serde(other)]
            Else,
        }
    ));
    assert_eq!(said, "`other` changes what the codec writes, or breaks it: leave it out");
    for right in [
        quote!(
            #[serde(try_from = "String")]
            #[wire(opaque = "name-v1")]
            struct Name(String);
        ),
        quote!(
            struct Line {
                #[serde(with = "hex")]
                #[wire(opaque = "hex-v1")]
                id: Id,
            }
        ),
        quote!(
            #[serde(rename_all = "snake_case")]
            enum Edit {
                #[serde(rename = "a")]
                Add,
            }
        ),
    ] {
        assert!(wire::expand(&syn::parse2(right).expect("an item")).is_ok());
    }
    assert_eq!(
        laid_out(quote!(
            struct Line {
                #[wire(opaque = "")]
                id: Id,
            }
        )),
        "the text stands for the layout, e.g. \"uuid-v1\""
    );
}

#[test]
fn an_item_that_is_refused_is_shown_without_our_attributes() {
    let item = quote!(
        enum Edit {
            #[since(2)]
            Add {
                #[wire(opaque = "a")]
                id: Id,
                #[doc = "kept"]
                n: u8,
            },
        }
    );
    let bare = fields::bare(item).to_string();
    assert_eq!(
        bare,
        quote!(
            enum Edit {
                Add {
                    id: Id,
                    #[doc = "kept"]
                    n: u8,
                },
            }
        )
        .to_string()
    );
    let item = quote!(
        struct Add {
            #[since(2)]
            id: Id,
        }
    );
    assert_eq!(
        fields::bare(item).to_string(),
        quote!(
            struct Add {
                id: Id,
            }
        )
        .to_string()
    );
}

#[test]
fn a_message_keeps_its_derives_and_gets_no_debug() {
    let item = quote!(
        #[derive(Clone)]
        pub struct Add {
            pub sku: String,
            #[since(2)]
            #[wire(opaque = "n")]
            note: N,
        }
    );
    let written = remote::expand(right(), item).expect("right").to_string();
    let kept = quote!(
        #[derive(Clone)]
        pub struct Add {
            pub sku: String,
            note: N,
        }
    )
    .to_string();
    assert!(written.starts_with(&kept), "{written}");
    assert!(!written.contains("Debug"), "a labelled field must not reach a log by accident");
}

#[test]
fn only_what_may_run_twice_or_has_a_key_may_be_retried() {
    assert_eq!(
        message(quote!(name = "cart.Add", class = "inventory", reply = u32, retried)),
        "only a message that is `idempotent` or has a `key` may be `retried`: any other could run twice"
    );
    let said = message(quote!(name = "cart.Add", class = "inventory", reply = u32, priority = "urgent"));
    assert!(said.contains("priority") && said.contains("low"), "{said}");
}

#[test]
fn a_message_requires_a_level_that_there_is() {
    let with = |level: &str| quote!(name = "cart.Add", class = "inventory", reply = u32, requires = #level);
    assert_eq!(
        message(with("strong")),
        "\"strong\" is no consistency level; choose among \"eventual\", \"read_committed\", \"snapshot\", \"serializable\", \"strict_serializable\""
    );
    let written = remote::expand(
        with("snapshot"),
        quote!(
            pub struct Add {
                pub sku: String,
            }
        ),
    );
    let written = written.expect("a level").to_string();
    assert!(written.contains("const REQUIRES : __rhumb :: core :: Guarantee"), "{written}");
    assert!(written.contains("Guarantee :: Snapshot"), "{written}");
}
