//! One set of test bodies over every body of the I/O seam: io_uring (where the probe succeeds), POSIX, POSIX on the
//! loop's own thread, and simulated. What only the simulation can show (power cuts, faults) is in `power` and `faults`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod buffers;
mod faults;
mod files;
mod power;
mod sockets;
mod stage;
mod tasks;

/// Makes of each named test body one test per body of the seam.
macro_rules! on_bodies {
    ($($suite:ident { $($test:ident),* $(,)? })*) => {
        mod uring {
            $(mod $suite { $(
                #[test]
                fn $test() { crate::stage::on_uring(crate::$suite::$test); }
            )* })*
        }
        mod posix {
            $(mod $suite { $(
                #[test]
                fn $test() { crate::stage::on_posix(crate::$suite::$test); }
            )* })*
        }
        mod inline {
            $(mod $suite { $(
                #[test]
                fn $test() { crate::stage::on_inline(crate::$suite::$test); }
            )* })*
        }
        mod sim {
            $(mod $suite { $(
                #[test]
                fn $test() { crate::stage::on_sim(crate::$suite::$test); }
            )* })*
        }
    };
}

on_bodies! {
    files {
        a_new_file_is_refused_where_one_exists,
        a_read_stops_at_the_end_of_the_file,
        a_read_at_once_gives_all_or_nothing,
        unaligned_buffered_bytes_come_back,
        direct_bytes_come_back,
        a_direct_read_of_a_tail_stops_at_the_end,
        operations_on_one_file_run_side_by_side,
        a_part_of_a_buffer_is_a_part,
        rename_replaces,
        unlink_removes_the_name_and_open_files_live_on,
        a_small_file_is_created_unless_it_or_another_exists,
        small_files_are_created_all_or_none_and_renamed_up_to_the_first_failure,
        directories_are_synced_and_must_exist,
        file_systems_are_synced_and_must_exist,
        fallocate_and_set_len_make_the_length,
        read_dir_is_sorted_and_complete,
        what_is_missing_is_not_found,
        what_exists_cannot_be_created,
        symbolic_links_and_write_only_files_are_no_back_doors,
        a_pipe_is_opened_without_a_writer,
        free_space_is_within_the_total,
        a_dropped_write_still_happens,
        writes_whose_callers_go_leave_the_others_alone,
    }
    sockets {
        exact_receive_over_many_sends,
        a_receive_takes_what_is_there,
        a_close_in_the_middle_is_unexpected,
        a_clean_close_is_zero,
        shutdown_ends_one_direction_only,
        dropping_the_sending_half_ends_the_direction,
        nobody_listening_is_refused,
        large_transfers_both_ways_at_once,
        many_connections_at_once,
        a_port_is_free_again,
        a_window_arrives_behind_its_head,
        a_window_waits_for_a_slow_reader_and_disturbs_no_receive,
        a_window_to_a_peer_that_goes_away_is_an_error,
        a_window_of_a_file_that_was_cut_is_an_error,
        there_is_no_window_on_what_is_not_there,
    }
    tasks {
        sleepers_wake_in_order,
        a_timeout_elapses_and_frees_what_it_held,
        work_within_the_limit_is_returned,
        spawned_tasks_run_and_may_spawn,
        time_goes_forward,
        a_receive_with_a_timeout_can_be_given_up,
    }
    buffers {
        an_empty_pool_makes_callers_wait_in_order,
        buffers_return_when_both_users_are_done,
        everything_returns_when_the_body_ends,
    }
}
