#!/bin/sh
# At the first start makes the user and the database, then becomes PostgreSQL.
set -eu

quoted() { # as SQL has it
    printf '%s' "$1" | sed "s/$2/$2$2/g"
}

if [ ! -e "$PGDATA/shop-ready" ]; then
    user=$(quoted "$POSTGRES_USER" '"') password=$(quoted "$POSTGRES_PASSWORD" "'")
    database=$(quoted "$POSTGRES_DB" '"')
    # single-user mode takes a command a line
    postgres --single -j postgres > /dev/null <<SQL
DO \$\$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$(quoted "$POSTGRES_USER" "'")') THEN
    CREATE ROLE "$user" LOGIN SUPERUSER PASSWORD '$password';
  END IF;
END \$\$;

CREATE DATABASE "$database" OWNER "$user";

SQL
    touch "$PGDATA/shop-ready"
fi

[ "$1" = postgres ] && set -- "$@" -c listen_addresses='*' -c unix_socket_directories=/tmp
exec "$@"
