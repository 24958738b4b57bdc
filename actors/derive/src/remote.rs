//! `#[remote]`: a message that may cross nodes.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::{Ident, LitStr, Path, Result, Type};

use crate::args::{self, Class, set};
use crate::fields::{Grown, grown};
use crate::grows::growing;
use crate::rules;

const OF: &str = "#[remote]";
const KNOWN: &[&str] = &[
    "name",
    "class",
    "reply",
    "reply_class",
    "idempotent",
    "deadline",
    "key",
    "audience",
    "coalesce",
    "retried",
    "priority",
    "requires",
    "crate",
];
const EXAMPLE: &str = "#[remote(name = \"cart.Add\", class = \"inventory\", reply = Result<u32, CartError>)]";
const DEADLINE: Duration = Duration::from_secs(5);

/// What `#[remote(..)]` says.
#[derive(Default)]
struct Declared {
    name: Option<LitStr>,
    class: Option<Class>,
    reply: Option<Type>,
    reply_class: Option<Class>,
    idempotent: Option<()>,
    deadline: Option<Duration>,
    key: Option<Ident>,
    audience: Option<&'static str>,
    coalesce: Option<Option<Ident>>,
    retried: Option<Ident>,
    priority: Option<&'static str>,
    requires: Option<&'static str>,
    krate: Option<Path>,
}

impl Declared {
    fn take(&mut self, key: &Ident, input: ParseStream<'_>) -> Result<()> {
        match key.to_string().as_str() {
            "name" => set(&mut self.name, key, rules::name(args::text(input, key, "name = \"cart.Add\"")?)?),
            "class" => set(&mut self.class, key, args::class(input, key)?),
            "reply" => set(&mut self.reply, key, args::ty(input, key, "reply = Result<u32, CartError>")?),
            "reply_class" => set(&mut self.reply_class, key, args::class(input, key)?),
            "idempotent" => set(&mut self.idempotent, key, ()),
            "deadline" => {
                let text = args::text(input, key, "deadline = \"500ms\"")?;
                set(&mut self.deadline, key, rules::duration(&text)?)
            }
            "key" => set(&mut self.key, key, args::field(input, key, "key = order_id")?),
            "audience" => {
                let text = args::text(input, key, "audience = \"operators\"")?;
                let words = [("everyone", "Everyone"), ("operators", "Operators"), ("nodes", "Nodes")];
                set(&mut self.audience, key, rules::choice(&text, "audience", &words)?)
            }
            "coalesce" if input.peek(syn::Token![=]) => {
                set(&mut self.coalesce, key, Some(args::field(input, key, "coalesce = sku")?))
            }
            "coalesce" => set(&mut self.coalesce, key, None),
            "retried" => set(&mut self.retried, key, key.clone()),
            "priority" => {
                let text = args::text(input, key, "priority = \"low\"")?;
                let words = [("low", "Low"), ("normal", "Normal"), ("high", "High")];
                set(&mut self.priority, key, rules::choice(&text, "priority", &words)?)
            }
            "requires" => {
                let text = args::text(input, key, "requires = \"snapshot\"")?;
                let words = [
                    ("eventual", "Eventual"),
                    ("read_committed", "ReadCommitted"),
                    ("snapshot", "Snapshot"),
                    ("serializable", "Serializable"),
                    ("strict_serializable", "StrictSerializable"),
                ];
                set(&mut self.requires, key, rules::choice(&text, "consistency level", &words)?)
            }
            "crate" => set(&mut self.krate, key, args::path(input, key)?),
            _ => Err(args::unknown(OF, key, KNOWN)),
        }
    }
}

/// `#[remote(..)]` on a struct.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let (item, fields) = grown(OF, item)?;
    let mut declared = Declared::default();
    let parser = |input: ParseStream<'_>| args::each(input, |key, input| declared.take(&key, input));
    parser.parse2(args)?;
    let scope = args::scope(declared.krate.as_ref());
    let Declared { name: Some(name), class: Some(class), reply: Some(reply), .. } = &declared else {
        return Err(missing(&declared));
    };
    if let Some(retried) = &declared.retried
        && declared.idempotent.is_none()
        && declared.key.is_none()
    {
        let why =
            "only a message that is `idempotent` or has a `key` may be `retried`: any other could run twice";
        return Err(syn::Error::new(retried.span(), why));
    }
    let ident = &item.ident;
    let layout = growing(ident, &name.value(), &fields);
    let constants = constants(&declared, name, &fields);
    let methods = methods(&declared, class, ident, &fields)?;
    Ok(quote! {
        #item
        const _: () = {
            #scope
            #layout
            impl __rhumb::actix::Message for #ident {
                type Result = #reply;
            }
            impl __rhumb::remote::Remote for #ident {
                #constants
                type Reply = #reply;
                #methods
            }
        };
    })
}

fn missing(declared: &Declared) -> syn::Error {
    let all = [
        ("name", declared.name.is_none()),
        ("class", declared.class.is_none()),
        ("reply", declared.reply.is_none()),
    ];
    let names: Vec<&str> = all.into_iter().filter_map(|(name, lacks)| lacks.then_some(name)).collect();
    args::missing(OF, &names, EXAMPLE)
}

fn constants(declared: &Declared, name: &LitStr, fields: &Grown) -> TokenStream {
    let (version, idempotent) = (fields.version(), declared.idempotent.is_some());
    let deadline = declared.deadline.unwrap_or(DEADLINE).as_millis();
    let deadline = u64::try_from(deadline).expect("it was made of 64 bits of milliseconds");
    let declares_reply_class = declared.reply_class.is_some();
    let audience = Ident::new(declared.audience.unwrap_or("Everyone"), proc_macro2::Span::call_site());
    let priority = Ident::new(declared.priority.unwrap_or("Normal"), proc_macro2::Span::call_site());
    let requires = Ident::new(declared.requires.unwrap_or("Eventual"), proc_macro2::Span::call_site());
    let (keyed, retried) = (declared.key.is_some(), declared.retried.is_some());
    quote! {
        const NAME: &'static str = #name;
        const VERSION: u16 = #version;
        const IDEMPOTENT: bool = #idempotent;
        const DEADLINE: ::core::time::Duration = ::core::time::Duration::from_millis(#deadline);
        const DECLARES_REPLY_CLASS: bool = #declares_reply_class;
        const AUDIENCE: __rhumb::remote::Audience = __rhumb::remote::Audience::#audience;
        const KEYED: bool = #keyed;
        const RETRIED: bool = #retried;
        const PRIORITY: __rhumb::core::Priority = __rhumb::core::Priority::#priority;
        const REQUIRES: __rhumb::core::Guarantee = __rhumb::core::Guarantee::#requires;
    }
}

fn methods(declared: &Declared, class: &Class, ident: &Ident, fields: &Grown) -> Result<TokenStream> {
    let class = class_of("class", class, ident, fields)?;
    let reply_class = match &declared.reply_class {
        None => None,
        Some(class) => Some(class_of("reply_class", class, ident, fields)?),
    };
    let key = match &declared.key {
        None => None,
        Some(key) => {
            let field = fields.field(ident, key)?;
            let text =
                quote_spanned!(args::at(field.span())=> ::std::string::ToString::to_string(&self.#field));
            Some(quote! {
                fn idempotency_key(&self) -> ::core::option::Option<::std::string::String> {
                    ::core::option::Option::Some(#text)
                }
            })
        }
    };
    let coalesce = match &declared.coalesce {
        None => None,
        Some(by) => {
            let value = match by {
                None => quote!(()),
                Some(by) => {
                    let field = fields.field(ident, by)?;
                    quote_spanned!(args::at(field.span())=> &self.#field)
                }
            };
            Some(quote! {
                fn coalesce_key(&self) -> ::core::option::Option<u64> {
                    let __key = (<Self as __rhumb::remote::Remote>::NAME, #value);
                    ::core::option::Option::Some(__rhumb::core::wire::hash_of(&__key))
                }
            })
        }
    };
    Ok(quote!(#class #reply_class #key #coalesce))
}

/// The method that says a class.
fn class_of(method: &str, class: &Class, ident: &Ident, fields: &Grown) -> Result<TokenStream> {
    let method = Ident::new(method, proc_macro2::Span::call_site());
    let body = match class {
        Class::LookedUp => quote!(::core::option::Option::None),
        Class::By(field) => {
            let field = fields.field(ident, field)?;
            quote_spanned!(args::at(field.span())=> ::core::option::Option::Some(&self.#field))
        }
        Class::Is(text) => quote! {
            static CLASS: ::std::sync::LazyLock<__rhumb::core::DataClass> =
                ::std::sync::LazyLock::new(|| __rhumb::class(#text));
            ::core::option::Option::Some(&*CLASS)
        },
    };
    Ok(quote! {
        fn #method(&self) -> ::core::option::Option<&__rhumb::core::DataClass> {
            #body
        }
    })
}
