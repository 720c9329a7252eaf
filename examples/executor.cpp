// The network on threads of the program's own: build/net/libnet.a, whichever way it was compiled.
//
//   c++ -std=c++17 -Ibuild/net examples/executor.cpp build/net/libnet.a -pthread -o executor
//   ./executor 4
//
// Any means to run tasks will do. With OpenMP parallel_for is
//   #pragma omp parallel for schedule(static, 1)
//   for (int i = 0; i < tasks; i++) task(arg, i);
// and with TBB  tbb::parallel_for(0, tasks, [=](int i) { task(arg, i); }, tbb::static_partitioner());

#include "net.h"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace {

// Threads that wait for tasks; the caller's own does its share.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; i++) others_.emplace_back([this] { Work(); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      changed_.notify_all();
    }
    for (std::thread &thread : others_) thread.join();
  }

  void Run(int tasks, std::function<void(int)> task) {
    std::unique_lock<std::mutex> lock(mutex_);
    task_ = std::move(task);
    next_ = 0;
    tasks_ = pending_ = tasks;
    changed_.notify_all();
    while (Next(lock)) {
    }
    changed_.wait(lock, [this] { return pending_ == 0; });
  }

 private:
  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stop_) {
      if (!Next(lock)) changed_.wait(lock, [this] { return stop_ || next_ < tasks_; });
    }
  }

  // Does one task that nobody has begun, if there is one.
  bool Next(std::unique_lock<std::mutex> &lock) {
    if (next_ >= tasks_) return false;
    int index = next_++;
    lock.unlock();
    task_(index);
    lock.lock();
    if (--pending_ == 0) changed_.notify_all();
    return true;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void(int)> task_;
  int tasks_ = 0, next_ = 0, pending_ = 0;
  bool stop_ = false;
  std::vector<std::thread> others_;
};

void ParallelFor(void *context, int tasks, void (*task)(void *, int), void *arg) {
  static_cast<Pool *>(context)->Run(tasks, [=](int index) { task(arg, index); });
}

}  // namespace

int main(int argc, char **argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  if (threads < 1) return 2;
  Pool pool(threads);
  const net_executor executor = {&pool, ParallelFor, threads};

  const std::align_val_t align{NET_WORKSPACE_ALIGN};
  void *workspace = ::operator new(NET_PARALLEL_WORKSPACE_BYTES(threads), align);
  void *alone = ::operator new(NET_WORKSPACE_BYTES, align);
  std::vector<NET_INPUT_TYPE> input(NET_INPUT_SIZE);
  std::vector<NET_OUTPUT_TYPE> output(NET_OUTPUT_SIZE), expected(NET_OUTPUT_SIZE);
  for (size_t i = 0; i < input.size(); i++) input[i] = static_cast<NET_INPUT_TYPE>(i * 37 % 251);

  int status = net_run(input.data(), expected.data(), alone);
  for (int i = 0; i < 10 && status == NET_OK; i++)
    status = net_run_parallel(input.data(), output.data(), workspace, &executor);
  const bool same =
      !std::memcmp(output.data(), expected.data(), output.size() * sizeof output[0]);
  std::printf("%d threads: %s\n", threads, status ? "error" : same ? "the same bits" : "WRONG");
  ::operator delete(workspace, align);
  ::operator delete(alone, align);
  return status == NET_OK && same ? 0 : 1;
}
