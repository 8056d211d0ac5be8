#!/bin/sh
# Makes the database at the first start, then becomes PostgreSQL.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    passwords=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" > "$passwords"
    # --no-sync: what is lost by a crash at this point is made again at the next start
    initdb --username="$POSTGRES_USER" --pwfile="$passwords" --encoding=UTF8 --locale=C \
        --auth-host=scram-sha-256 --auth-local=trust --no-sync > /dev/null
    rm -f "$passwords"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo "CREATE DATABASE \"$POSTGRES_DB\"" |
            postgres --single -j postgres > /dev/null
    fi
    sync "$PGDATA" 2> /dev/null || sync
fi

[ "$1" = postgres ] && set -- "$@" -c listen_addresses='*' -c unix_socket_directories=/tmp
exec "$@"
