//! `protocol!`: what a kind of actor can be asked, apart from the actor.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, LitStr, Path, Result, Token, Type, Visibility};

use crate::{actor, args, rules};

const HOW: &str = "a protocol is `pub Carts = \"cart\", class \"inventory\": Add, Remove;`";

/// One protocol.
struct Protocol {
    attrs: Vec<Attribute>,
    vis: Visibility,
    ident: Ident,
    name: LitStr,
    class: LitStr,
    messages: Vec<Type>,
}

/// `protocol! { … }`.
pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let (krate, protocols) = parse.parse2(input)?;
    if protocols.is_empty() {
        return Err(Error::new(proc_macro2::Span::call_site(), HOW));
    }
    let scope = args::scope(krate.as_ref());
    Ok(protocols.iter().map(|protocol| one(&scope, protocol)).collect())
}

fn parse(input: ParseStream<'_>) -> Result<(Option<Path>, Vec<Protocol>)> {
    let mut krate = None;
    if input.peek(Token![crate]) && input.peek2(Token![=]) {
        let key = input.call(Ident::parse_any)?;
        krate = Some(args::path(input, &key)?);
        input.parse::<Token![;]>()?;
    }
    let mut protocols = Vec::new();
    while !input.is_empty() {
        protocols.push(protocol(input)?);
    }
    Ok((krate, protocols))
}

fn protocol(input: ParseStream<'_>) -> Result<Protocol> {
    let wrong = |error: Error| Error::new(error.span(), format!("{error}; {HOW}"));
    let attrs = input.call(Attribute::parse_outer)?;
    let vis = input.parse()?;
    let ident = input.parse().map_err(wrong)?;
    input.parse::<Token![=]>().map_err(wrong)?;
    let name = rules::name(input.parse().map_err(wrong)?)?;
    input.parse::<Token![,]>().map_err(wrong)?;
    let key: Ident = input.parse().map_err(wrong)?;
    if key != "class" {
        return Err(Error::new(key.span(), format!("the class comes behind the name; {HOW}")));
    }
    let class = rules::class(input.parse().map_err(wrong)?)?;
    input.parse::<Token![:]>().map_err(wrong)?;
    let mut messages = Vec::new();
    loop {
        messages.push(input.parse().map_err(wrong)?);
        if input.peek(Token![,]) {
            input.parse::<Token![,]>()?;
        }
        if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            break;
        }
        if input.is_empty() {
            return Err(Error::new(input.span(), format!("`;` ends it; {HOW}")));
        }
    }
    Ok(Protocol { attrs, vis, ident, name, class, messages: args::distinct(messages)? })
}

fn one(scope: &TokenStream, protocol: &Protocol) -> TokenStream {
    let Protocol { attrs, vis, ident, name, class, messages } = protocol;
    let accepts = messages.iter().map(
        |message| quote_spanned!(args::at(message.span())=> impl __rhumb::remote::Accepts<#message> for #ident {}),
    );
    let handles = messages.iter().map(|message| {
        quote! {
            __A: __rhumb::actix::Handler<#message>,
            <__A as __rhumb::actix::Handler<#message>>::Result: __rhumb::remote::KeepsContext,
        }
    });
    let (distinct, table) = (actor::distinct(messages), actor::table(messages.iter()));
    quote! {
        #(#attrs)*
        #[derive(Debug, Clone, Copy)]
        #vis struct #ident;
        const _: () = {
            #scope
            impl __rhumb::remote::Addressed for #ident {
                const TYPE: &'static str = #name;
                const CLASS: &'static str = #class;
            }
            #(#accepts)*
            #distinct
            impl<__A: __rhumb::actix::Actor> __rhumb::remote::Protocol<__A> for #ident
            where
                #(#handles)*
            {
                fn serve<__T: __rhumb::remote::Table<__A>>(__table: &mut __T) {
                    #table
                }
            }
        };
    }
}
