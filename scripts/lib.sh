# lib.sh - what the scripts of this folder share; they read it with ".".
# shellcheck shell=sh

# Where the sources are and where they are built: the Makefile says so; a
# script that is called by hand works in the source tree.
top_srcdir=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
top_builddir=${top_builddir:-$top_srcdir}

# fail STATUS MESSAGE...: one line, and the end.
fail()
{
    status=$1
    shift
    echo "$(basename "$0"): $*" >&2
    exit "$status"
}

# chapters: the table without its comments.
chapters()
{
    grep -v '^#' "$top_srcdir/scripts/chapters"
}

# list_chapters: one line a chapter, for people.
list_chapters()
{
    chapters | while read -r folder servers; do
        number=${folder#ch}
        number=${number%%-*}
        printf '  CH=%s  %-22s %s\n' "${number#0}" "$folder" "$servers"
    done
}

# chapter_folder CH: the folder that 4, 04, ch04 or ch04-epoll stands for.
chapter_folder()
{
    wanted=${1#ch}
    case $wanted in
    '')
        echo "$(basename "$0"): which chapter? CH=n is one of" >&2
        list_chapters >&2
        exit 2
        ;;
    [1-9]) wanted=0$wanted ;;
    esac
    found=$(chapters | while read -r folder servers; do
        number=${folder#ch}
        case $wanted in "${number%%-*}" | "$number" | "$number/") echo "$folder" ;; esac
    done)
    test -n "$found" || fail 2 "there is no chapter $1; CH=n is one of $(chapter_numbers)"
    echo "$found"
}

chapter_numbers()
{
    chapters | sed 's/^ch0*\([0-9]*\).*/\1/' | paste -sd ' ' -
}

# chapter_servers FOLDER: the names of its servers.
chapter_servers()
{
    chapters | sed -n "s/^$1 //p"
}

# chapter_server FOLDER MODEL: MODEL if the chapter has it; its first server if MODEL is empty.
chapter_server()
{
    servers=$(chapter_servers "$1")
    for server in $servers; do
        if test -z "$2" || test "$2" = "$server"; then
            echo "$server"
            return
        fi
    done
    fail 2 "$1 has no server $2; MODEL is one of: $servers"
}
