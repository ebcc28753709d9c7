/* peer_asio.cpp - the same echo on Boost.Asio.
 *
 * The session class of its examples: async_read_some, answer, async_read_some
 * again, kept alive by a shared_ptr. Two things that its documentation offers to
 * those who want speed: the io_context is told that one thread runs it without
 * locks, and the answer is first tried with a non-blocking write_some within the
 * handler; only the rest goes through async_write.
 * Needs Boost 1.70, headers only. Try: ./peer_asio --port 7007 */
#include <boost/asio.hpp>
#include <boost/version.hpp>

#include "peer.h"

#include <array>
#include <cstdlib>
#include <iostream>
#include <memory>

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class session : public std::enable_shared_from_this<session>
{
  public:
    explicit session(tcp::socket socket) : socket_(std::move(socket))
    {
    }

    void read()
    {
        auto self = shared_from_this();
        socket_.async_read_some(asio::buffer(buffer_), [this, self](error_code error, std::size_t count) {
            if (!error)
                answer(count);
        });
    }

  private:
    void answer(std::size_t count)
    {
        error_code error;
        std::size_t sent = socket_.write_some(asio::buffer(buffer_, count), error);
        if (error && error != asio::error::would_block)
            return;
        if (sent == count) {
            read();
            return;
        }
        auto self = shared_from_this();
        asio::async_write(socket_, asio::buffer(buffer_.data() + sent, count - sent),
                          [this, self](error_code failed, std::size_t) {
                              if (!failed)
                                  read();
                          });
    }

    tcp::socket socket_;
    std::array<char, PEER_BUFFER> buffer_;
};

static void accept_next(tcp::acceptor &acceptor, bool nodelay)
{
    acceptor.async_accept([&acceptor, nodelay](error_code error, tcp::socket socket) {
        if (!error) {
            error_code ignored; /* an error here means that the client has gone */
            socket.set_option(tcp::no_delay(nodelay), ignored);
            socket.non_blocking(true, ignored);
            std::make_shared<session>(std::move(socket))->read();
        }
        accept_next(acceptor, nodelay);
    });
}

int main(int argc, char **argv)
{
    bool nodelay;
    int fd = peer_listen(argc, argv, "Boost.Asio of Boost " BOOST_LIB_VERSION ", for the bench", &nodelay);

    try {
        asio::io_context context{BOOST_ASIO_CONCURRENCY_HINT_UNSAFE};
        sockaddr_storage address;
        socklen_t size = sizeof address;
        if (getsockname(fd, reinterpret_cast<sockaddr *>(&address), &size) < 0)
            net_die("getsockname");
        tcp::acceptor acceptor(context, address.ss_family == AF_INET6 ? tcp::v6() : tcp::v4(), fd);
        accept_next(acceptor, nodelay);
        context.run();
    } catch (const std::exception &failure) {
        std::cerr << "peer_asio: " << failure.what() << '\n';
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
