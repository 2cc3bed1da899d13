vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "8001";
}

sub vcl_recv {
    if (req.method != "GET" && req.method != "HEAD") {
        return (pass);
    }
    # The audience: one of few values, whatever the client sends.
    if (req.http.Cookie ~ "(^|;\s*)audience=vip(;|$)") {
        set req.http.X-Audience = "vip";
    } else {
        set req.http.X-Audience = "everybody";
    }
    set req.http.Surrogate-Capability = "shop=ESI/1.0";
    # Also with a cookie: what is personal says so itself, by Cache-Control: private and Vary.
    return (hash);
}

sub vcl_backend_response {
    if (beresp.http.Surrogate-Control ~ "ESI/1.0") {
        unset beresp.http.Surrogate-Control;
        set beresp.do_esi = true;
    }
    if (beresp.http.Cache-Control ~ "(?i)private|no-store" || beresp.http.Set-Cookie) {
        set beresp.uncacheable = true;
        set beresp.ttl = 60s;
    }
}

sub vcl_deliver {
    # A hit carries the ids of two requests.
    set resp.http.X-Cache = regsub(resp.http.X-Varnish, "^\d+$", "miss");
    if (resp.http.X-Cache != "miss") {
        set resp.http.X-Cache = "hit";
    }
}
