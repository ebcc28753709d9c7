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
    chapters | sed -n "s/ +.*//; s/^$1 //p"
}

# chapter_programs FOLDER: these, and its other programs.
chapter_programs()
{
    chapters | sed -n "s/ + / /; s/^$1 //p"
}

# chapter_server FOLDER MODEL [PROGRAMS]: MODEL if it is one of the chapter's servers, or of those PROGRAMS;
# the first one if MODEL is empty.
chapter_server()
{
    servers=${3:-$(chapter_servers "$1")}
    for server in $servers; do
        if test -z "$2" || test "$2" = "$server"; then
            echo "$server"
            return
        fi
    done
    fail 2 "$1 has no server $2; MODEL is one of: $servers"
}

# make_quietly FOLDER TARGET...: says nothing if all is well
make_quietly()
{
    ${MAKE:-make} -s -C "$@" || fail 1 "make -C $* failed"
}

# begin_tests: before the first run_tests. Signals end the test program, too.
begin_tests()
{
    passed=0
    failed=0
    skipped=0
    test_program=
    scratch=$(mktemp -d)
    fifo=$scratch/tap
    trap 'rm -rf "$scratch"' EXIT
    trap 'end_tests 130' INT
    trap 'end_tests 143' TERM
    mkfifo "$fifo"
}

end_tests()
{
    test -z "$test_program" || kill "$test_program" 2>/dev/null || true
    exit "$1"
}

# run_tests TITLE PROGRAM ARGUMENT...: runs a TAP program, prints its lines as
# they come, and adds them to the score.
run_tests()
{
    title=$1
    shift
    plan=
    seen=0
    bad=0
    status=0
    "$@" >"$fifo" 2>&1 &
    test_program=$!
    while IFS= read -r line; do
        text=${line#*ok }
        text=${text#* - }
        case $line in
        'no test has '*) plan=0 ;;
        '1..0 # SKIP '*)
            plan=0
            printf '\n%s\n  skip  all of it (%s)\n' "$title" "${line#1..0 # SKIP }"
            skipped=$((skipped + 1))
            ;;
        1..*)
            plan=${line#1..}
            echo
            echo "$title"
            ;;
        'ok '*' # SKIP'*)
            echo "  skip  ${text% \# SKIP *} (${text#* \# SKIP })"
            skipped=$((skipped + 1)) seen=$((seen + 1))
            ;;
        'ok '*)
            echo "  pass  $text"
            passed=$((passed + 1)) seen=$((seen + 1))
            ;;
        'not ok '*)
            echo "  FAIL  $text"
            failed=$((failed + 1)) seen=$((seen + 1)) bad=1
            ;;
        '#'*) printf '      %s\n' "${line#?}" ;;
        *) echo "        $line" ;;
        esac
    done <"$fifo"
    wait "$test_program" || status=$?
    test_program=
    test "$plan" != 0 || return 0 # TEST is in the name of none of its tests
    if test "$status" -ne 0 && test "$bad" -eq 0 || test "${plan%% *}" != "$seen"; then
        echo "  FAIL  $title: ended with status $status after $seen of ${plan:-an unknown number of} tests"
        failed=$((failed + 1))
    fi
}
