//! `#[remote_actor]`: an actor that other nodes may call, and that a node can host.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Error, Ident, ItemImpl, LitStr, Path, Result, Type};

use crate::args::{self, set};
use crate::rules;

const OF: &str = "#[remote_actor]";
const KNOWN: &[&str] = &["name", "accepts", "serves", "class", "mailbox", "overflow", "crate"];
const EXAMPLE: &str = "#[remote_actor(name = \"cart\", class = \"inventory\", accepts(Add, Remove))]";
/// Messages that may wait, where nothing is said.
const MAILBOX: usize = 1024;

/// What `#[remote_actor(..)]` says.
#[derive(Default)]
struct Declared {
    name: Option<LitStr>,
    accepts: Option<Vec<Type>>,
    serves: Option<Type>,
    class: Option<LitStr>,
    mailbox: Option<usize>,
    overflow: Option<&'static str>,
    krate: Option<Path>,
}

impl Declared {
    fn take(&mut self, key: &Ident, input: ParseStream<'_>) -> Result<()> {
        match key.to_string().as_str() {
            "name" => set(&mut self.name, key, rules::name(args::text(input, key, "name = \"cart\"")?)?),
            "accepts" => {
                let types = args::types(input, key, "accepts(Add, Remove)")?;
                if types.is_empty() {
                    return Err(Error::new(key.span(), "`accepts` is empty: e.g. `accepts(Add, Remove)`"));
                }
                set(&mut self.accepts, key, types)
            }
            "serves" => set(&mut self.serves, key, args::ty(input, key, "serves = Carts")?),
            "class" => {
                let text = args::text(input, key, "class = \"inventory\"")?;
                set(&mut self.class, key, rules::class(text)?)
            }
            "mailbox" => {
                let number = args::number(input, key, "mailbox = 1024")?;
                match number.base10_parse() {
                    Ok(size @ 1..) => set(&mut self.mailbox, key, size),
                    _ => {
                        let how = "a mailbox has room for one message at least, e.g. `mailbox = 1024`";
                        Err(Error::new(number.span(), how))
                    }
                }
            }
            "overflow" => {
                let text = args::text(input, key, "overflow = \"refuse\"")?;
                let words = [("refuse", "Refuse"), ("drop_oldest", "DropOldest"), ("coalesce", "Coalesce")];
                set(&mut self.overflow, key, rules::choice(&text, "overflow policy", &words)?)
            }
            "crate" => set(&mut self.krate, key, args::path(input, key)?),
            _ => Err(args::unknown(OF, key, KNOWN)),
        }
    }

    fn check(&self) -> Result<()> {
        if let Some(serves) = &self.serves
            && (self.name.is_some() || self.class.is_some() || self.accepts.is_some())
        {
            let how = "the protocol says the name, the class and what is accepted: leave `name`, `class` and `accepts` out, or `serves`";
            return Err(Error::new_spanned(serves, how));
        }
        let apart = self.serves.is_none();
        let all = [
            ("name", apart && self.name.is_none()),
            ("class", apart && self.class.is_none()),
            ("accepts", apart && self.accepts.is_none()),
        ];
        let lacks: Vec<&str> = all.into_iter().filter_map(|(name, lacks)| lacks.then_some(name)).collect();
        if lacks.is_empty() { Ok(()) } else { Err(args::missing(OF, &lacks, EXAMPLE)) }
    }
}

/// `#[remote_actor(..)]` on an `impl Actor for …`.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let item = implementation(item)?;
    let mut declared = Declared::default();
    let parser = |input: ParseStream<'_>| args::each(input, |key, input| declared.take(&key, input));
    parser.parse2(args)?;
    declared.check()?;
    let scope = args::scope(declared.krate.as_ref());
    let actor = &item.self_ty;
    let addressed = match &declared {
        Declared { serves: Some(protocol), .. } => by_protocol(actor, protocol),
        Declared { name: Some(name), class: Some(class), accepts: Some(accepts), .. } => {
            by_list(actor, name, class, accepts)
        }
        _ => TokenStream::new(),
    };
    let hosted = hosted(actor, &declared);
    Ok(quote! {
        #item
        const _: () = {
            #scope
            #addressed
            #hosted
        };
    })
}

/// The item as an `impl Actor for …`.
fn implementation(item: TokenStream) -> Result<ItemImpl> {
    let how = || format!("{OF} stands on `impl Actor for …`");
    let span = item.span();
    let item: ItemImpl = syn::parse2(item).map_err(|_| Error::new(span, how()))?;
    let of_actor = item.trait_.as_ref().is_some_and(|(bang, path, _)| {
        bang.is_none() && path.segments.last().is_some_and(|segment| segment.ident == "Actor")
    });
    if !of_actor {
        return Err(Error::new_spanned(&item.self_ty, how()));
    }
    if !item.generics.params.is_empty() {
        let how = format!("{OF} stands on an actor without parameters: one name is one kind of actor");
        return Err(Error::new_spanned(&item.generics, how));
    }
    Ok(item)
}

fn by_protocol(actor: &Type, protocol: &Type) -> TokenStream {
    quote! {
        impl __rhumb::remote::Addressed for #actor {
            const TYPE: &'static str = <#protocol as __rhumb::remote::Addressed>::TYPE;
            const CLASS: &'static str = <#protocol as __rhumb::remote::Addressed>::CLASS;
        }
        impl<__M: __rhumb::remote::Remote> __rhumb::remote::Accepts<__M> for #actor
        where
            #protocol: __rhumb::remote::Accepts<__M>,
        {
        }
    }
}

fn by_list(actor: &Type, name: &LitStr, class: &LitStr, accepts: &[Type]) -> TokenStream {
    let distinct = distinct(accepts);
    let each = accepts.iter().map(
        |message| quote_spanned!(args::at(message.span())=> impl __rhumb::remote::Accepts<#message> for #actor {}),
    );
    quote! {
        impl __rhumb::remote::Addressed for #actor {
            const TYPE: &'static str = #name;
            const CLASS: &'static str = #class;
        }
        #(#each)*
        #distinct
    }
}

/// A check that no two messages have one name, which the compiler makes.
pub(crate) fn distinct(messages: &[Type]) -> TokenStream {
    quote! {
        const _: () = __rhumb::distinct(&[#(<#messages as __rhumb::remote::Remote>::NAME),*]);
    }
}

fn hosted(actor: &Type, declared: &Declared) -> TokenStream {
    let Declared { mailbox, overflow, .. } = declared;
    let mailbox = mailbox.unwrap_or(MAILBOX);
    let overflow = Ident::new(overflow.unwrap_or("Refuse"), Span::call_site());
    let serve = match &declared.serves {
        Some(protocol) => quote_spanned! {args::at(protocol.span())=>
            <#protocol as __rhumb::remote::Protocol<Self>>::serve(__table);
        },
        None => table(declared.accepts.iter().flatten()),
    };
    quote! {
        impl __rhumb::remote::Hosted for #actor {
            const MAILBOX: usize = #mailbox;
            const OVERFLOW: __rhumb::remote::Overflow = __rhumb::remote::Overflow::#overflow;
            fn serve<__T: __rhumb::remote::Table<Self>>(__table: &mut __T) {
                #serve
            }
        }
    }
}

/// The calls that enter each message; what is wrong with a message's handler is said at its name.
pub(crate) fn table<'a>(messages: impl Iterator<Item = &'a Type>) -> TokenStream {
    let each = messages.map(
        |message| quote_spanned!(args::at(message.span())=> __rhumb::remote::Table::message::<#message>(__table);),
    );
    quote!(#(#each)*)
}
